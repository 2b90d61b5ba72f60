// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"fmt"
	"regexp/syntax"

	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
)

// maxPattern bounds a regular expression, in instructions. Each byte of a text may have to pass each of them, and nothing can
// interrupt that: with maxMatched, it takes a fraction of a second.
const maxPattern = 64

// vetter finds in an expression what vet refuses.
type vetter struct {
	info    *ast.SourceInfo
	matches bool // there is a regular expression
	err     error
}

// vet refuses what CEL has, and could make the memory or the time that an evaluation takes much larger than the expression and the
// answer are. CEL counts the cost of a call when it is over, so its limit comes too late for these:
//
//   - Functions that build long text: body.replace("", body) would take a terabyte.
//   - Lists and maps of other things than constants. A value that contains another one twice, and that one the next, is small, but
//     to compare it takes forever.
//   - Searching with a pattern or a text that the app chooses, or in a text that is put together.
//
// It also says whether there is a regular expression.
func vet(checked *ast.AST) (matches bool, err error) {
	v := &vetter{info: checked.SourceInfo()}
	v.look(checked.Expr())
	return v.matches, v.err
}

func (v *vetter) refuse(e ast.Expr, format string, args ...any) {
	if v.err == nil {
		where := v.info.GetStartLocation(e.ID())
		v.err = fmt.Errorf("%s: %s", at(where.Line(), where.Column()), fmt.Sprintf(format, args...))
	}
}

func (v *vetter) look(e ast.Expr) {
	switch e.Kind() {
	case ast.CallKind:
		v.call(e)
	case ast.ComprehensionKind:
		v.loop(e.AsComprehension())
	case ast.ListKind:
		if !constant(e) {
			v.refuse(e, "a list may only have constants")
		}
	case ast.MapKind, ast.StructKind:
		v.refuse(e, "maps and messages cannot be made")
	case ast.SelectKind:
		v.look(e.AsSelect().Operand())
	default: // constants and names
	}
}

func (v *vetter) call(e ast.Expr) {
	call := e.AsCall()
	switch name := call.FunctionName(); name {
	case "replace", "join":
		v.refuse(e, "there is no function %s here", name)
	case "indexOf", "lastIndexOf":
		if !constant(call.Args()[0]) {
			v.refuse(e, "what %s looks for has to be a constant", name)
		}
	case "matches":
		v.matches = true
		v.pattern(call.Args()[len(call.Args())-1])
		if adds(e) {
			v.refuse(e, "matches cannot look into text that is put together with +")
		}
	}
	if call.IsMemberFunction() {
		v.look(call.Target())
	}
	for _, arg := range call.Args() {
		v.look(arg)
	}
}

// pattern vets a regular expression.
func (v *vetter) pattern(e ast.Expr) {
	if e.Kind() != ast.LiteralKind {
		v.refuse(e, "the pattern of matches has to be a constant")
		return
	}
	text, _ := e.AsLiteral().(types.String)
	parsed, err := syntax.Parse(string(text), syntax.Perl)
	if err != nil {
		v.refuse(e, "%s", err)
		return
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(program.Inst) > maxPattern {
		v.refuse(e, "the pattern of matches is too large")
	}
}

// adds reports whether there is a + in a call, at any depth.
func adds(e ast.Expr) bool {
	found := false
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.Add
	}))
	return found
}

// loop vets what a macro stands for. Of filter it is only the condition, since the rest is a list that grows.
func (v *vetter) loop(c ast.ComprehensionExpr) {
	v.look(c.IterRange())
	if step := c.LoopStep(); c.AccuInit().Kind() == ast.ListKind && step.Kind() == ast.CallKind {
		v.look(step.AsCall().Args()[0])
		return
	}
	v.look(c.LoopStep())
}

// constant reports whether e is a constant, or a list of constants.
func constant(e ast.Expr) bool {
	switch e.Kind() {
	case ast.LiteralKind:
		return true
	case ast.ListKind:
		for _, element := range e.AsList().Elements() {
			if !constant(element) {
				return false
			}
		}
		return true
	case ast.CallKind: // -1 is a call
		call := e.AsCall()
		return call.FunctionName() == operators.Negate && constant(call.Args()[0])
	default:
		return false
	}
}
