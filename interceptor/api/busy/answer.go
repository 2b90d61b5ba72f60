// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

// The variables of an expression.
const (
	varStatus  = "status"
	varHeaders = "headers"
	varJSON    = "json"
	varBody    = "body"
)

// Answer is what an app has answered.
type Answer struct {
	Status int
	// Headers are the fields by their names in lower case. The values of a field are joined with ", ".
	Headers map[string]string
	Body    []byte
	// TooLong is set if the body is longer than what is kept of it.
	TooLong bool
}

var errTooLong = errors.New("the body of the answer is too long")

// variables are those of one evaluation. The body is parsed when the expression reads json.
type variables struct {
	answer  *Answer
	tooLong bool
	json    any
}

// ResolveName implements cel.Activation.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case varStatus:
		return int64(v.answer.Status), true
	case varHeaders:
		return v.answer.Headers, true
	case varBody:
		if v.tooLong {
			return types.WrapErr(errTooLong), true
		}
		return strings.ToValidUTF8(string(v.answer.Body), "\uFFFD"), true
	case varJSON:
		if v.json == nil {
			v.json = v.parsed()
		}
		return v.json, true
	default:
		return nil, false
	}
}

// Parent implements cel.Activation.
func (v *variables) Parent() cel.Activation { return nil }

// parsed returns the body as a value of CEL, or an error as one.
func (v *variables) parsed() any {
	a := v.answer
	switch {
	case v.tooLong:
		return types.WrapErr(errTooLong)
	case len(bytes.TrimSpace(a.Body)) == 0:
		return types.NewErr("the answer has no body, so there is no json")
	}
	d := json.NewDecoder(bytes.NewReader(a.Body))
	d.UseNumber()
	var value any
	err := d.Decode(&value)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more after its end")
		}
	}
	if err == nil {
		value, err = withNumbers(value)
	}
	switch {
	case err != nil:
		return types.WrapErr(fmt.Errorf("the body of the answer is not JSON: %w", err))
	case value == nil:
		return types.NullValue
	default:
		return value
	}
}

// withNumbers turns each number into an integer if it is written as one, and otherwise into a floating-point number.
func withNumbers(value any) (_ any, err error) {
	switch v := value.(type) {
	case map[string]any:
		for key, one := range v {
			if v[key], err = withNumbers(one); err != nil {
				return nil, err
			}
		}
	case []any:
		for i, one := range v {
			if v[i], err = withNumbers(one); err != nil {
				return nil, err
			}
		}
	case json.Number:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n, nil
		}
		return v.Float64()
	}
	return value, nil
}
