package api

//go:generate ./generate.sh
