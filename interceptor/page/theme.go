// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"html/template"
	"strings"
	"text/template/parse"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	// maxTheme is the maximum length of a theme.
	maxTheme = 32 << 10
	// maxNodes is how many parts (pieces of text, fields and so on) a theme may have. Each page takes that many steps.
	maxNodes = 1000
	// maxDepth is how deep parentheses may be nested, in actions and in text.
	maxDepth = 100
)

// SetTheme sets the template for the pages of a namespace's apps. source is a template of html/template that gets a View. If source
// is empty, the built-in page is used. A refused theme is logged, and the built-in page is used too.
func (p *Pages) SetTheme(namespace, source string) {
	var theme *template.Template
	if source != "" {
		var err error
		if theme, err = p.parse(namespace, source); err != nil {
			p.log.Info("Refusing a waiting page's template; the built-in page is used", "namespace", namespace, "reason", err.Error())
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if theme == nil {
		delete(p.themes, namespace)
		return
	}
	p.themes[namespace] = theme
}

// parse returns the theme if it can do no harm, and if its page works in every state of a start.
func (p *Pages) parse(namespace, source string) (*template.Template, error) {
	if len(source) > maxTheme {
		return nil, fmt.Errorf("it has %d bytes; allowed are %d", len(source), maxTheme)
	}
	if err := checkSource(source); err != nil {
		return nil, err
	}
	t, err := template.New("page").Parse(source)
	if err != nil {
		return nil, err
	}
	// A template that is defined, and not only used, is an additional one.
	if len(t.Templates()) != 1 || t.Tree == nil {
		return nil, errors.New("it defines templates, which is not allowed")
	}
	if err := new(checker).check(t.Tree.Root); err != nil {
		return nil, err
	}
	for _, progress := range []api.Progress{
		{},
		{Stage: api.StagePulling, Starts: []api.Duration{api.Duration(8 * time.Second)}},
		{Stage: api.StagePulling, Failing: "its image cannot be pulled", Reason: "ImagePullBackOff"},
	} {
		v := p.view(&Wait{Namespace: namespace, App: "app", Progress: progress}, p.languages.all[0])
		body, err := execute(t, v)
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(body, []byte(v.Live)) {
			return nil, errors.New("it lacks {{.Live}}, without which the page would never open the app")
		}
	}
	return t, nil
}

// checkSource refuses what takes the parser more than proportional time: many actions, and parentheses within each other. It does not
// know which of them are in text; no page has so many.
func checkSource(source string) error {
	if strings.Count(source, "{{") > maxNodes {
		return fmt.Errorf("it has more than %d actions", maxNodes)
	}
	depth := 0
	for i := range len(source) {
		switch source[i] {
		case '(':
			depth++
		case ')':
			depth = max(0, depth-1)
		}
		if depth > maxDepth {
			return fmt.Errorf("more than %d parentheses are within each other", maxDepth)
		}
	}
	return nil
}

// checker refuses everything that a theme does not need: loops, definitions and calls. Its author may be after the interceptor's time
// and memory. The rest takes at most one step for each node, because text is never concatenated.
type checker struct{ nodes int }

func (c *checker) check(node parse.Node) error {
	if c.nodes++; c.nodes > maxNodes {
		return fmt.Errorf("it has more than %d parts", maxNodes)
	}
	switch n := node.(type) {
	case *parse.ListNode:
		return c.checkList(n)
	case *parse.ActionNode:
		return c.checkPipe(n.Pipe)
	case *parse.IfNode:
		return cmp.Or(c.checkPipe(n.Pipe), c.checkList(n.List), c.checkList(n.ElseList))
	case *parse.WithNode:
		return cmp.Or(c.checkPipe(n.Pipe), c.checkList(n.List), c.checkList(n.ElseList))
	case *parse.PipeNode:
		return c.checkPipe(n)
	case *parse.ChainNode:
		return c.check(n.Node)
	case *parse.IdentifierNode:
		switch n.Ident {
		case "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "len":
			return nil
		}
		return fmt.Errorf("it calls %s; allowed are eq, ne, lt, le, gt, ge, and, or, not and len", n.Ident)
	case *parse.TextNode, *parse.CommentNode, *parse.DotNode, *parse.FieldNode, *parse.VariableNode,
		*parse.BoolNode, *parse.NumberNode, *parse.StringNode, *parse.NilNode:
		return nil
	default:
		return fmt.Errorf("it has %.60q, which is not allowed", node.String())
	}
}

func (c *checker) checkList(list *parse.ListNode) error {
	if list == nil {
		return nil
	}
	for _, n := range list.Nodes {
		if err := c.check(n); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkPipe(pipe *parse.PipeNode) error {
	for _, command := range pipe.Cmds {
		for _, arg := range command.Args {
			if err := c.check(arg); err != nil {
				return err
			}
		}
	}
	return nil
}
