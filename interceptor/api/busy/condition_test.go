// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const jenkins = `{"busyExecutors": 1, "load": 0.5, "label": "a\u0000b", "computer": [
	{"name": "one", "idle": true, "executors": []}, {"name": "two", "idle": false, "executors": [{"progress": 40}]}], "none": null}`

func TestHolds(t *testing.T) {
	json := &Answer{Status: 200, Headers: map[string]string{"x-jobs": "3", "via": "a, b"}, Body: []byte(jenkins)}
	text := &Answer{Status: 503, Body: []byte("idle\xff\n")}
	for expression, tc := range map[string]struct {
		answer *Answer
		want   bool
	}{
		`json.busyExecutors > 0`:                                              {json, true},
		`json.busyExecutors == 1 && json.busyExecutors + 1 < 3`:               {json, true},
		`json.busyExecutors > 0.5 && json.load < 1`:                           {json, true},
		`json.busyExecutors > 1`:                                              {json, false},
		`json.computer.exists(c, !c.idle)`:                                    {json, true},
		`json.computer.all(c, c.idle)`:                                        {json, false},
		`json.computer.filter(c, c.name in ["two", "x"]).size() > 0`:          {json, true},
		`json.computer.exists_one(c, c.executors.exists(e, e.progress > -1))`: {json, true},
		`has(json.queue) && json.queue > 0`:                                   {json, false},
		`"queue" in json`:                                                     {json, false},
		`json.none == null`:                                                   {json, true},
		`int(headers["x-jobs"]) > 2`:                                          {json, true},
		`headers.exists(h, h == "via" && headers[h] == "a, b")`:               {json, true},
		`"retry-after" in headers`:                                            {json, false},
		`status == 200 ? json.busyExecutors > 0 : false`:                      {text, false},
		`status != 503`:                                                       {text, false},
		`body.trim() == "idle\uFFFD"`:                                         {text, true},
		`body.split("\n").exists(l, l.lowerAscii().startsWith("running"))`:    {text, false},
		`body.matches("^(idle|stopped)") && body.indexOf("le") == 2`:          {text, true},
	} {
		t.Run(expression, func(t *testing.T) {
			c, err := Compile(expression)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Holds(t.Context(), tc.answer); got != tc.want || err != nil {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

func TestMaxBody(t *testing.T) {
	for expression, want := range map[string]int{
		"status == 200": 0, `headers["a"] == "json"`: 0, `json == 1`: 1 << 20, `status == 200 || body == ""`: 1 << 20,
		`headers.all(h, h.matches("a"))`: 0, `json.a.exists(a, a.matches("a"))`: 64 << 10,
	} {
		if c, err := Compile(expression); err != nil || c.MaxBody() != want {
			t.Errorf("%s: %v, %v", expression, c, err)
		}
	}
}

// What an expression cannot get from an answer is an error that says what is missing.
func TestHoldsFails(t *testing.T) {
	for name, tc := range map[string]struct {
		expression string
		answer     Answer
		want       string
	}{
		"no body":     {"json.a > 0", Answer{}, "the answer has no body, so there is no json"},
		"blank body":  {"json.a > 0", Answer{Body: []byte(" \n")}, "the answer has no body, so there is no json"},
		"HTML":        {"json.a > 0", Answer{Body: []byte("<html>")}, "the body of the answer is not JSON: invalid character '<'"},
		"two values":  {"json == 1", Answer{Body: []byte("1 2")}, "the body of the answer is not JSON: there is more after its end"},
		"cut off":     {"json.a > 0", Answer{Body: []byte(`{"a": 1`)}, "the body of the answer is not JSON: unexpected EOF"},
		"huge number": {"json.a > 0", Answer{Body: []byte(`{"a": 1e999}`)}, "out of range"},
		"too deep":    {"json.a > 0", Answer{Body: []byte(strings.Repeat("[", 100_000))}, "exceeded max depth"},
		"too long":    {"json.a > 0", Answer{Body: []byte("1"), TooLong: true}, "the body of the answer is too long"},
		"long for a match": {
			`body.matches("a")`, Answer{Body: []byte(strings.Repeat("a", 64<<10+1))}, "the body of the answer is too long",
		},
		"too long text": {`body == ""`, Answer{TooLong: true}, "the body of the answer is too long"},
		"no such key":   {"json.b > 0", Answer{Body: []byte(`{"a": 1}`)}, "no such key: b"},
		"no such field": {`headers["a"] == ""`, Answer{}, "no such key: a"},
		"null":          {"json.a > 0", Answer{Body: []byte("null")}, "no such key: a"},
		"another type":  {"json.a > 0", Answer{Body: []byte(`{"a": "1"}`)}, "no such overload"},
		"no bool":       {"json.a ? true : false", Answer{Body: []byte(`{"a": 1}`)}, "no such overload"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Compile(tc.expression)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Holds(t.Context(), &tc.answer); got || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for expression, want := range map[string]string{
		Example: "",
		`json.jobs.exists(j, j.state in ["QUEUED", "RUNNING"])`:                 "", // in the documentation
		`status == 200 && has(json.exports) && json.exports.size() > 0`:         "",
		`body.matches("BusyWorkers: ([2-9]|1[0-9])") && headers["x-jobs"] > ""`: "",
		"status in [200, 204]":    "",
		"json.n in [[-1], [1.5]]": "",
		"":                        "column 1: Syntax error: mismatched input '<EOF>' expecting ",
		"json.a >":                "column 9: Syntax error: mismatched input '<EOF>' expecting ",
		"jsn.a > 0":               "column 1: undeclared reference to 'jsn' (in container '')",
		"true &&\n  jsn.a > 0":    "line 2, column 3: undeclared reference to 'jsn' (in container '')",
		"a && b && c && d": "column 1: undeclared reference to 'a' (in container ''); column 6: undeclared reference to 'b' (in container ''); " +
			"column 11: undeclared reference to 'c' (in container '')",
		"status":                       "it has to be true or false, and it is of type int",
		"json.busy":                    "it has to be true or false, and its type is not known: compare it with something, as in ",
		`status > "1"`:                 "column 8: found no matching overload for '_>_' applied to '(int, string)'",
		`json.a.map(x, x.b) == []`:     "column 11: undeclared reference to 'map' (in container '')",
		`body.replace("", body) == ""`: "column 13: there is no function replace here",
		`true || body.split("").join(body) == ""`:   "column 28: there is no function join here",
		`[json, json] == [json, json]`:              "column 1: a list may only have constants",
		`{"a": 1} == json`:                          "column 1: maps and messages cannot be made",
		`google.protobuf.Int32Value{value: 1} == 1`: "column 27: maps and messages cannot be made",
		`body.matches(body)`:                        "column 14: the pattern of matches has to be a constant",
		`matches(body, json.p)`:                     "column 19: the pattern of matches has to be a constant",
		`json.a.exists(x, x.matches(x))`:            "column 28: the pattern of matches has to be a constant",
		`json.a.filter(x, x == [x]).size() > 0`:     "column 23: a list may only have constants",
		`json[[json][0]] == 1`:                      "column 6: a list may only have constants",
		`body.matches("a{70}")`:                     "column 14: the pattern of matches is too large",
		`body.matches("(")`:                         "column 14: error parsing regexp: missing closing ): `(`",
		`(body + body).matches("a")`:                "column 22: matches cannot look into text that is put together with +",
		`body.indexOf(body) > 0`:                    "column 13: what indexOf looks for has to be a constant",
		`body.lastIndexOf(json.a, 3) > 0`:           "column 17: what lastIndexOf looks for has to be a constant",
		"status == " + strings.Repeat("1", 1015):    "it has 1025 bytes, and 1024 are allowed",
	} {
		err := Check(expression)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%q: %v", expression, err)
		}
	}
}

// A hostile expression and a hostile answer together are stopped before they take much time.
func TestStops(t *testing.T) {
	const most = 1 << 20
	flat := `{"a":[` + strings.TrimSuffix(strings.Repeat("1,", most/2-10), ",") + "]}"
	nested := func(inner string, n int) string {
		for i := range n {
			inner = fmt.Sprintf("json.a.exists(v%d, %s)", i, inner)
		}
		return inner
	}
	text := strings.Repeat("a", most)
	for name, tc := range map[string]struct{ expression, body string }{
		"loops in loops":      {nested("false", 8), flat},
		"loop over text":      {`body.split("").exists(x, body.split("").exists(y, body.split("").exists(z, x + y + z == "abc")))`, text},
		"comparing in a loop": {`json.a.exists(x, json != json)`, flat},
		"filters of filters":  {`json.a.filter(x, json.a.filter(y, y > 1).size() > 0).size() > 0`, flat},
		"adding lists":        {strings.Repeat("json.a + ", 110) + "json.a == json.a", flat},
		"adding text":         {strings.Repeat("body + ", 140) + `body == ""`, text},
		"adding text of JSON": {strings.Repeat("json + ", 140) + `json == ""`, `"` + text[:most-2] + `"`},
		"searching in a loop": {`body.split("").exists(x, body.indexOf("` + strings.Repeat("a", 500) + `b") > 0)`, text},
		"matching in a row":   {strings.Repeat(`body.matches("(a{50}|b)+c") || `, 30) + "false", text[:64<<10]},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Compile(tc.expression)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() {
				_, err := c.Holds(context.WithoutCancel(t.Context()), &Answer{Body: []byte(tc.body)})
				ended <- err
			}()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("it ends in peace")
				}
				t.Log(err)
			case <-time.After(time.Minute):
				t.Fatal("it does not end")
			}
		})
	}
}

func TestCostLimit(t *testing.T) {
	c, err := Compile(strings.Repeat(`body.matches("^b") || `, 10) + "false") // it counts much, and takes no time
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Holds(t.Context(), &Answer{Body: []byte(strings.Repeat("a", 64<<10))})
	if err == nil || !strings.Contains(err.Error(), "actual cost limit exceeded") {
		t.Error(err)
	}
}

func TestInterrupts(t *testing.T) {
	c, err := Compile(`json.exists(x, x > 1)`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := c.Holds(ctx, &Answer{Body: []byte("[1, 1]")}); !errors.Is(err, why) {
		t.Error(err)
	}
}

// FuzzHolds looks for answers and expressions that panic or do not end.
func FuzzHolds(f *testing.F) {
	f.Add(Example, jenkins)
	f.Add(`json.a.filter(x, x != 1).size() > 0 || body.matches("a+")`, `{"a": [1, 2.5, 1e3]}`)
	f.Add(`headers.all(h, h.split("-").size() < 3) && status > 199`, "")
	f.Fuzz(func(t *testing.T, expression, body string) {
		c, err := Compile(expression)
		if (err == nil) != (Check(expression) == nil) {
			t.Errorf("%q: compiling says %v, and checking %v", expression, err, Check(expression))
		}
		if err != nil {
			return
		}
		if len(expression) > api.MaxBusyWhen {
			t.Errorf("%d bytes were compiled", len(expression))
		}
		a := &Answer{Status: 200, Headers: map[string]string{"a": "b"}, Body: []byte(body)}
		if holds, err := c.Holds(t.Context(), a); holds && err != nil {
			t.Errorf("%q of %q: it holds, and %v", expression, body, err)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	for b.Loop() {
		if err := Check(Example); err != nil {
			b.Fatal(err)
		}
	}
}
