// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	width  = 80 // of wrapped lines; terminals have at least that
	indent = "  "
)

type style string

const (
	bold  style = "1"
	cyan  style = "36"
	green style = "32"
	red   style = "31"
)

// A narrator prints what the viewer reads: commands as the viewer would type them, and observations, indented.
type narrator struct {
	out      io.Writer
	terminal bool // progress may be shown
	colour   bool
	chapter  string // the last heading
}

func newNarrator(out *os.File, env func(string) string) *narrator {
	terminal := isTerminal(out) && env("TERM") != "dumb"
	return &narrator{out: out, terminal: terminal, colour: terminal && env("NO_COLOR") == ""}
}

// isTerminal says whether f is a character device other than /dev/null.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

func (n *narrator) paint(s style, text string) string {
	if !n.colour {
		return text
	}
	return "\033[" + string(s) + "m" + text + "\033[0m"
}

func (n *narrator) line(text string) { fmt.Fprintln(n.out, text) }

func (n *narrator) blank() { n.line("") }

func (n *narrator) title(text string) {
	n.line(n.paint(bold, text))
	n.blank()
}

func (n *narrator) heading(text string) {
	n.chapter = text
	n.blank()
	n.line(n.paint(bold, "== "+text))
	n.blank()
}

// inChapter adds to an error the heading under which it came.
func (n *narrator) inChapter(err error) error {
	if err == nil || n.chapter == "" {
		return err
	}
	return fmt.Errorf("in %q: %w", n.chapter, err)
}

// say prints prose.
func (n *narrator) say(text string) {
	for _, line := range wrap(text, width) {
		n.line(line)
	}
}

// command prints a command that is about to run, with its arguments.
func (n *narrator) command(args ...string) {
	for i, line := range wrapCommand(args, width-len("$ ")) {
		prefix := "$ "
		if i > 0 {
			prefix = "    "
		}
		n.line(n.paint(cyan, prefix+line))
	}
}

// saw prints what was observed.
func (n *narrator) saw(text string) {
	for _, line := range wrap(text, width-len(indent)) {
		n.line(indent + line)
	}
}

// verbatim prints a program's output.
func (n *narrator) verbatim(output string) {
	for line := range strings.Lines(output) {
		n.line(strings.TrimRight(indent+line, " \n"))
	}
}

// A row of a table. Its mark is + for what is new and - for what is gone, as in a diff.
type row struct {
	mark  string
	cells []string
}

// table prints rows in columns; the last column is wrapped.
func (n *narrator) table(rows ...row) {
	for _, r := range layout(rows, width-len(indent)) {
		style, known := map[string]style{"+": green, "-": red}[r.mark]
		text := indent + r.cells[0]
		if known {
			text = n.paint(style, text)
		}
		n.line(text)
	}
}

// layout turns a table into lines, each a row of one cell. It leaves room for marks only if a row has one.
func layout(rows []row, width int) []row {
	var columns []int
	marked := slices.ContainsFunc(rows, func(r row) bool { return r.mark != "" })
	for _, r := range rows {
		for i, cell := range r.cells[:len(r.cells)-1] {
			if i == len(columns) {
				columns = append(columns, 0)
			}
			columns[i] = max(columns[i], utf8.RuneCountInString(cell)+2)
		}
	}
	var lines []row
	for _, r := range rows {
		mark, left, last := "", "", len(r.cells)-1
		if marked {
			mark = pad(r.mark, 2)
		}
		for i, cell := range r.cells[:last] {
			left += pad(cell, columns[i])
		}
		start := utf8.RuneCountInString(left)
		for i, text := range wrap(r.cells[last], width-len(mark)-start) {
			if i > 0 {
				left = pad("", start)
			}
			lines = append(lines, row{mark: r.mark, cells: []string{strings.TrimRight(mark+left+text, " ")}})
		}
	}
	return lines
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// wrap breaks text between words into lines of at most width characters. A longer word gets a line of its own, and text that
// fits is unchanged.
func wrap(text string, width int) []string {
	if utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	return fill(strings.Fields(text), width, "")
}

// wrapCommand breaks a command into lines before its flags, so that a flag keeps its value. The result can be pasted.
func wrapCommand(args []string, width int) []string {
	command := strings.Join(args, " ")
	if utf8.RuneCountInString(command) <= width {
		return []string{command}
	}
	var chunks []string
	for _, arg := range args {
		if len(chunks) == 0 || strings.HasPrefix(arg, "-") {
			chunks = append(chunks, arg)
			continue
		}
		chunks[len(chunks)-1] += " " + arg
	}
	return fill(chunks, width-len("    \\"), ` \`)
}

// fill puts as many chunks on each line as fit, and mark at the end of every line but the last. It returns at least one
// line.
func fill(chunks []string, width int, mark string) []string {
	lines := []string{""}
	for _, chunk := range chunks {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = chunk
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(chunk) <= width:
			*last += " " + chunk
		default:
			*last += mark
			lines = append(lines, chunk)
		}
	}
	return lines
}
