// What KEDA is built with in place of its own files; see ../kedabuild.go. Not a module that anybody builds: it keeps
// these files out of the module around them.
module github.com/kedacore/keda/v2

go 1.26.0
