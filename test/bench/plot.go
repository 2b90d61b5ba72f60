// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"html/template"
	"math"
	"strings"
)

// plot is a figure's picture: a row for each proxy, a dot for each value, and a bar at their summary.
type plot struct {
	figure
	Result result
	rows   []row
}

// row is one proxy's values.
type row struct {
	name   string
	values []float64
}

const (
	plotWidth  = 720
	plotLeft   = 150 // names
	plotRight  = 80  // summary of the values
	rowHeight  = 34
	axisHeight = 34
)

// Title is for the page's template.
func (p plot) Title() string { return p.title }

// Better says which direction is good.
func (p plot) Better() string {
	if p.more {
		return "more is better"
	}
	return "less is better"
}

// Against is the proxy that the ratio compares with.
func (p plot) Against() string { return p.reference }

// goalAt is where our bar would be at the highest ratio allowed, or 0 without a goal.
func (p plot) goalAt() float64 {
	switch {
	case p.Result.Goal == nil:
		return 0
	case p.more:
		return p.Result.Reference / *p.Result.Goal
	default:
		return p.Result.Reference * *p.Result.Goal
	}
}

// SVG draws the plot. Its colours are the page's.
func (p plot) SVG() template.HTML {
	top := p.goalAt()
	for _, r := range p.rows {
		for _, v := range r.values {
			top = max(top, v)
		}
	}
	step := tickStep(top)
	end := max(step, math.Ceil(top/step)*step)
	x := func(v float64) float64 { return plotLeft + v/end*(plotWidth-plotLeft-plotRight) }
	bottom := len(p.rows)*rowHeight + 18
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, plotWidth, bottom+axisHeight, template.HTMLEscapeString(p.title))
	for i := 0; float64(i)*step <= end*1.0001; i++ {
		v := float64(i) * step
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="14" y2="%d"/>`, x(v), x(v), bottom)
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%d">%s</text>`, x(v), bottom+15, number(v))
	}
	fmt.Fprintf(&b, `<text class="unit" x="%d" y="%d">%s, %s</text>`, plotWidth-plotRight, bottom+31, template.HTMLEscapeString(p.unit),
		p.Better())
	if at := p.goalAt(); at > 0 {
		fmt.Fprintf(&b, `<line class="goal" x1="%.1f" x2="%.1f" y1="14" y2="%d"/><text class="goal" x="%.1f" y="10">goal</text>`, x(at), x(at),
			bottom, x(at))
	}
	for i, r := range p.rows {
		p.draw(&b, r, 18+i*rowHeight+rowHeight/2, x)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // built here from numbers and escaped text
}

func (p plot) draw(b *strings.Builder, r row, y int, x func(float64) float64) {
	class := "other"
	switch r.name {
	case p.ours:
		class = "ours"
	case p.reference:
		class = "reference"
	}
	fmt.Fprintf(b, `<g class="%s"><text class="name" x="%d" y="%d">%s</text>`, class, plotLeft-12, y+5, template.HTMLEscapeString(r.name))
	for _, v := range r.values {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%d" r="4"><title>%s</title></circle>`, x(v), y, number(v))
	}
	if len(r.values) > 0 {
		m := p.middle(r.values)
		fmt.Fprintf(b, `<line class="middle" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, x(m), x(m), y-11, y+11)
		fmt.Fprintf(b, `<text class="value" x="%d" y="%d">%s</text>`, plotWidth-plotRight+12, y+5, number(m))
	}
	b.WriteString(`</g>`)
}

// tickStep returns a round step of which about five fit into top.
func tickStep(top float64) float64 {
	if !(top > 0) || math.IsInf(top, 0) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(top/5)))
	for _, k := range []float64{1, 2, 5} {
		if top <= 5*k*power {
			return k * power
		}
	}
	return 10 * power
}
