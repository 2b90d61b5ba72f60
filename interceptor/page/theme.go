package page

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"html/template"
	"text/template/parse"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// maxTheme bounds a theme.
const maxTheme = 64 << 10

// SetTheme has the pages of a namespace's apps made of source, a template of html/template that is given a View; of nothing
// they are made as else. A theme that is refused is logged, and none.
func (p *Pages) SetTheme(namespace, source string) {
	var theme *template.Template
	if source != "" {
		var err error
		if theme, err = p.parse(namespace, source); err != nil {
			p.log.Info("refusing a waiting page's template; the built-in page is used", "namespace", namespace, "reason", err.Error())
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

// parse returns the theme if it is none that can do harm, and shows the page at work in any case.
func (p *Pages) parse(namespace, source string) (*template.Template, error) {
	if len(source) > maxTheme {
		return nil, fmt.Errorf("it has %d bytes; allowed are %d", len(source), maxTheme)
	}
	t, err := template.New("page").Parse(source)
	if err != nil {
		return nil, err
	}
	// What is defined, and not only used, is another template.
	if len(t.Templates()) != 1 || t.Tree == nil {
		return nil, errors.New("it defines templates, which is not allowed")
	}
	if err := check(t.Tree.Root); err != nil {
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

// check refuses what a theme has no need of: all that loops, defines or calls, since whoever has written it may want the
// interceptor's time and memory. What is left takes no longer than its length, for text is never joined.
func check(node parse.Node) error {
	switch n := node.(type) {
	case *parse.ListNode:
		return checkAll(n)
	case *parse.ActionNode:
		return checkPipe(n.Pipe)
	case *parse.IfNode:
		return cmp.Or(checkPipe(n.Pipe), checkAll(n.List), checkAll(n.ElseList))
	case *parse.WithNode:
		return cmp.Or(checkPipe(n.Pipe), checkAll(n.List), checkAll(n.ElseList))
	case *parse.PipeNode:
		return checkPipe(n)
	case *parse.ChainNode:
		return check(n.Node)
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

func checkAll(list *parse.ListNode) error {
	if list == nil {
		return nil
	}
	for _, n := range list.Nodes {
		if err := check(n); err != nil {
			return err
		}
	}
	return nil
}

func checkPipe(pipe *parse.PipeNode) error {
	for _, command := range pipe.Cmds {
		for _, arg := range command.Args {
			if err := check(arg); err != nil {
				return err
			}
		}
	}
	return nil
}
