package bench

import (
	"bytes"
	"fmt"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Sizes of pictures in points. The narrow one is for phones, where a scaled-down
// wide one could not be read.
const (
	plotWidth, plotHeight     = 720, 380
	narrowWidth, narrowHeight = 360, 300
	pngDPI                    = 144
)

// PNG draws the picture on white.
func (p *Plot) PNG() ([]byte, error) {
	width, height := p.size(false)
	canvas := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(pngDPI))
	if err := p.draw(draw.New(canvas)); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: canvas}).WriteTo(&out); err != nil {
		return nil, fmt.Errorf("plot %s: %w", p.Name, err)
	}
	return out.Bytes(), nil
}

// svg draws the picture as an svg element whose colours are the page's variables.
func (p *Plot) svg(narrow bool) (string, error) {
	width, height := p.size(narrow)
	canvas := vgsvg.New(width, height)
	if err := p.draw(draw.New(canvas)); err != nil {
		return "", err
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return "", fmt.Errorf("plot %s: %w", p.Name, err)
	}
	return themed(out.String(), p.Title), nil
}

// size grows with the rows that a picture has to hold.
func (p *Plot) size(narrow bool) (width, height vg.Length) {
	width, height = plotWidth, plotHeight
	if narrow {
		width, height = narrowWidth, narrowHeight
	}
	switch {
	case len(p.Grid) > 0:
		cell := float64(width-2*margin) / float64(p.gridColumns())
		height = vg.Length(math.Min(cell, 14)*float64(len(p.Grid))) + 110
	case p.horizontal(width):
		height = max(height, vg.Length(len(p.Categories)*max(len(p.Series), 1)*16+120))
	}
	return width, height
}

// check finds what cannot be drawn.
func (p *Plot) check() error {
	if p.Name == "" {
		return fmt.Errorf("plot %q has no name for its file", p.Title)
	}
	for i := range p.Series {
		s := &p.Series[i]
		want, of := len(s.X), "X"
		if p.Categories != nil {
			want, of = len(p.Categories), "Categories"
		}
		if p.Grid == nil && len(s.Y) != want {
			return fmt.Errorf("plot %s, series %q: %d Y for %d %s", p.Name, s.Name, len(s.Y), want, of)
		}
		for _, n := range []int{len(s.Low), len(s.High), len(s.Labels)} {
			if n != 0 && n != len(s.Y) {
				return fmt.Errorf("plot %s, series %q: error bars or labels of %d for %d Y", p.Name, s.Name, n, len(s.Y))
			}
		}
	}
	for _, row := range p.Grid {
		for _, cell := range row {
			if cell >= len(p.Series) {
				return fmt.Errorf("plot %s: a cell of series %d, there are %d", p.Name, cell, len(p.Series))
			}
		}
	}
	return nil
}

// margin is around the picture, in points.
const margin = 12

// draw fills the canvas: title, what is measured, legend, and below these the
// data, so that nothing lies over them.
func (p *Plot) draw(c draw.Canvas) error {
	if err := p.check(); err != nil {
		return err
	}
	c.FillPolygon(paper, []vg.Point{c.Min, {X: c.Max.X, Y: c.Min.Y}, c.Max, {X: c.Min.X, Y: c.Max.Y}})
	c = draw.Crop(c, margin, -margin, margin, -margin)
	c.Max.Y = p.drawHeader(c)
	if p.Grid != nil {
		p.drawGrid(c)
		return nil
	}
	figure := plot.New()
	figure.BackgroundColor = nil
	x, y := &figure.X, &figure.Y
	if p.Categories == nil {
		p.addLines(figure, c.Max.X-c.Min.X)
	} else {
		p.addBars(figure, c.Max.X-c.Min.X)
	}
	x.Label.Text, x.Label.TextStyle = p.XLabel, textStyle(11, muted)
	x.Label.TextStyle.XAlign = draw.XCenter
	x.Label.Padding = 4
	for _, axis := range []*plot.Axis{x, y} {
		axis.LineStyle.Color, axis.LineStyle.Width = muted, 0.75
		axis.Tick.LineStyle.Color, axis.Tick.LineStyle.Width = muted, 0.75
		axis.Tick.Label.Font, axis.Tick.Label.Color = sans(11), ink
		axis.Tick.Length = 4
		axis.Padding = 4
	}
	figure.Draw(c)
	return nil
}

// drawHeader writes title, the quantity on the value axis and the legend, and
// returns the height at which the data may begin.
func (p *Plot) drawHeader(c draw.Canvas) vg.Length {
	y := c.Max.Y
	title := textStyle(14, ink)
	title.Font.Weight = bold
	for _, line := range wrapText(title, p.Title, c.Max.X-c.Min.X) {
		y -= 17
		c.FillText(title, vg.Point{X: c.Min.X, Y: y}, line)
	}
	if p.YLabel != "" {
		y -= 17
		c.FillText(textStyle(11, muted), vg.Point{X: c.Min.X, Y: y}, p.YLabel)
	}
	return p.drawLegend(c, y) - 12
}

// drawLegend names the series in rows from the left.
func (p *Plot) drawLegend(c draw.Canvas, y vg.Length) vg.Length {
	named := 0
	for i := range p.Series {
		if p.Series[i].Name != "" {
			named++
		}
	}
	if named == 0 || named == 1 && p.Grid == nil {
		return y
	}
	const gap, row = 16, 17
	sample := vg.Length(22)
	if p.Categories != nil || p.Grid != nil {
		sample = 14
	}
	style := textStyle(11, ink)
	x := c.Min.X
	y -= row
	for i := range p.Series {
		s := &p.Series[i]
		if s.Name == "" {
			continue
		}
		width := sample + 6 + style.Width(s.Name)
		if x > c.Min.X && x+width > c.Max.X {
			x, y = c.Min.X, y-row
		}
		p.drawSample(c, i, vg.Rectangle{Min: vg.Point{X: x, Y: y}, Max: vg.Point{X: x + sample, Y: y + 8}})
		c.FillText(style, vg.Point{X: x + sample + 6, Y: y}, s.Name)
		x += width + gap
	}
	return y
}

// drawSample shows in the legend how a series looks.
func (p *Plot) drawSample(c draw.Canvas, i int, box vg.Rectangle) {
	middle := (box.Min.Y + box.Max.Y) / 2
	if p.Categories != nil || p.Grid != nil {
		c.FillPolygon(seriesColor(i), []vg.Point{box.Min, {X: box.Max.X, Y: box.Min.Y}, box.Max, {X: box.Min.X, Y: box.Max.Y}})
		return
	}
	s := &p.Series[i]
	if s.Style != Points {
		c.StrokeLine2(lineStyle(i, s.Style), box.Min.X, middle, box.Max.X, middle)
	}
	if s.Style == LinePoints || s.Style == Points {
		c.DrawGlyph(glyphStyle(i), vg.Point{X: (box.Min.X + box.Max.X) / 2, Y: middle})
	}
}

// wrapText breaks text at spaces into lines of a width.
func wrapText(style text.Style, s string, width vg.Length) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		switch joined := line + " " + word; {
		case line == "":
			line = word
		case style.Width(joined) <= width:
			line = joined
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
