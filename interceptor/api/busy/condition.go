// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	// costLimit is Kubernetes' limit for one expression (k8s.io/apiserver/pkg/apis/cel, PerCallLimit).
	costLimit = 1_000_000
	// timeLimit is how long an evaluation may take. Only a hostile one takes longer than a moment.
	timeLimit = 500 * time.Millisecond
	// maxBody bounds the body of an answer, in bytes. maxMatched does for an expression with a regular expression: see maxPattern.
	maxBody, maxMatched = 1 << 20, 64 << 10
	// maxShown is how many of the compiler's errors are shown.
	maxShown = 3
)

// Example is an expression that compiles.
const Example = "json.busyExecutors > 0"

// environment is made when the first expression is compiled: most installations have none, and it takes memory and time.
//
//nolint:gochecknoglobals // it never changes, and to make it for each Service takes too long
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable(varStatus, cel.IntType),
		cel.Variable(varHeaders, cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable(varJSON, cel.DynType),
		cel.Variable(varBody, cel.StringType),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(api.MaxBusyWhen),
		// All of the standard macros but map, which could build a value that contains another one many times.
		cel.ClearMacros(), cel.Macros(cel.HasMacro, cel.AllMacro, cel.ExistsMacro, cel.ExistsOneMacro, cel.FilterMacro),
		ext.Strings(ext.StringsVersion(0)),
	)
})

// Condition is a compiled expression. It may be used by several goroutines.
type Condition struct {
	program cel.Program
	maxBody int
}

// Check says what is wrong with an expression, in words for its author.
func Check(expression string) error {
	_, _, err := compile(expression)
	return err
}

// Compile returns the Condition that an expression stands for.
func Compile(expression string) (*Condition, error) {
	checked, matches, err := compile(expression)
	if err != nil {
		return nil, err
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("preparing CEL: %w", err)
	}
	program, err := env.Program(checked, cel.CostLimit(costLimit), cel.CostTracking(costs{}), cel.InterruptCheckFrequency(1))
	if err != nil {
		return nil, fmt.Errorf("preparing the expression: %w", err)
	}
	c := &Condition{program: program}
	for _, reference := range checked.NativeRep().ReferenceMap() {
		if reference.Name == varJSON || reference.Name == varBody {
			c.maxBody = maxBody
		}
	}
	if matches {
		c.maxBody = min(c.maxBody, maxMatched)
	}
	return c, nil
}

// compile returns the expression, and whether it has a regular expression.
func compile(expression string) (_ *cel.Ast, matches bool, _ error) {
	if len(expression) > api.MaxBusyWhen {
		return nil, false, fmt.Errorf("it has %d bytes, and %d are allowed", len(expression), api.MaxBusyWhen)
	}
	env, err := environment()
	if err != nil {
		return nil, false, fmt.Errorf("preparing CEL: %w", err)
	}
	checked, issues := env.Compile(expression)
	if issues.Err() != nil {
		var all []string
		for i, e := range issues.Errors() {
			if i == maxShown {
				break
			}
			all = append(all, at(e.Location.Line(), e.Location.Column())+": "+strings.Join(strings.Fields(e.Message), " "))
		}
		return nil, false, errors.New(strings.Join(all, "; "))
	}
	if matches, err = vet(checked.NativeRep()); err != nil {
		return nil, false, err
	}
	switch result := checked.OutputType(); result.Kind() {
	case types.BoolKind:
		return checked, matches, nil
	case types.DynKind:
		return nil, false, errors.New("it has to be true or false, and its type is not known: compare it with something, as in json.busy == true")
	default:
		return nil, false, fmt.Errorf("it has to be true or false, and it is of type %s", result)
	}
}

// at says where an error is, as people count.
func at(line, column int) string {
	column = max(column, 0) + 1 // there is no column in an empty expression
	if line <= 1 {
		return fmt.Sprintf("column %d", column)
	}
	return fmt.Sprintf("line %d, column %d", line, column)
}

// MaxBody is how many bytes the answer's body may have; 0 if the expression does not read it.
func (c *Condition) MaxBody() int { return c.maxBody }

// Holds reports whether an answer meets the expression.
func (c *Condition) Holds(ctx context.Context, a *Answer) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	value, _, err := c.program.ContextEval(ctx, &variables{answer: a, tooLong: a.TooLong || len(a.Body) > c.maxBody})
	if err != nil {
		return false, err // by cel-go, in its words
	}
	holds, ok := value.Value().(bool)
	if !ok {
		return false, fmt.Errorf("it is of type %s, not bool", value.Type())
	}
	return holds, nil
}

// costs adds what the cost of Kubernetes' expressions leaves out: the work of functions on text and lists in proportion to their length.
type costs struct{}

// CallCost implements interpreter.ActualCostEstimator. Nil stands for the cost that CEL knows itself.
func (costs) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	const perByte = 0.1 // as for the functions that CEL knows
	var cost float64
	switch function {
	case operators.Add:
		a, b := length(args[0]), length(args[1])
		switch args[0].(type) {
		case traits.Lister:
			cost = min(a, b) // filter adds one element at a time
		case types.String, types.Bytes: // CEL does not count it if the type was not known before
			cost = perByte * (a + b)
		default:
			return nil
		}
	case "charAt", "lowerAscii", "upperAscii", "substring", "trim":
		cost = perByte * length(args[0])
	case "split":
		cost = perByte*length(args[0]) + length(result)
	case "matches": // CEL goes by the length of the pattern, and a{50} is short
		cost = perByte * length(args[0]) * maxPattern / 2
	case "indexOf", "lastIndexOf":
		cost = perByte * length(args[0]) * max(1, perByte*length(args[1]))
	default:
		return nil
	}
	return new(uint64(math.Ceil(cost)) + 1)
}

// length is that of a text in bytes, and that of a list in elements.
func length(v ref.Val) float64 {
	switch v := v.(type) {
	case types.String:
		return float64(len(v))
	case traits.Sizer:
		if n, ok := v.Size().(types.Int); ok {
			return float64(n)
		}
	}
	return 1
}
