package bench

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// horizontal says whether bars lie, because their names do not fit below them.
func (p *Plot) horizontal(width vg.Length) bool {
	if len(p.Categories) == 0 {
		return false
	}
	style := textStyle(11, ink)
	room := (width - 90) / vg.Length(len(p.Categories))
	for _, name := range p.Categories {
		if style.Width(name)+8 > room {
			return true
		}
	}
	return false
}

// addBars puts the series over names into the figure.
func (p *Plot) addBars(figure *plot.Plot, width vg.Length) {
	b := bars{plot: p, lying: p.horizontal(width + 2*margin)}
	values, names := &figure.Y, &figure.X
	if b.lying {
		values, names = names, values
	}
	p.scaleY(values, false)
	if len(p.Series)*len(p.Categories) <= 12 {
		values.Max += 0.08 * (values.Max - values.Min) // the values above the bars
	}
	var ticks fixedTicks
	for i, name := range p.Categories {
		ticks = append(ticks, plot.Tick{Value: b.slot(i), Label: name})
	}
	names.Tick.Marker = ticks
	names.Min, names.Max = -0.5, float64(len(p.Categories))-0.5
	names.Tick.LineStyle.Width = 0
	figure.Add(gridLines{across: b.lying}, b)
}

// bars draws groups of bars.
type bars struct {
	plot  *Plot
	lying bool
}

// slot is where a category stands; lying ones are read from the top.
func (b bars) slot(category int) float64 {
	if b.lying {
		return float64(len(b.plot.Categories) - 1 - category)
	}
	return float64(category)
}

// Plot implements plot.Plotter.
func (b bars) Plot(c draw.Canvas, figure *plot.Plot) {
	x, y := figure.Transforms(&c)
	at := func(place, value float64) vg.Point {
		if b.lying {
			return vg.Point{X: x(value), Y: y(place)}
		}
		return vg.Point{X: x(place), Y: y(value)}
	}
	n := float64(len(b.plot.Series))
	width := math.Min(0.7/n, 0.5)
	limit := b.plot.errorLimit()
	for i := range b.plot.Series {
		s := &b.plot.Series[i]
		for j, value := range s.Y {
			if !finite(value) {
				continue
			}
			offset := (float64(i) - (n-1)/2) * width
			if b.lying {
				offset = -offset
			}
			place := b.slot(j) + offset
			half := 0.46 * width
			c.FillPolygon(seriesColor(i), []vg.Point{at(place-half, 0), at(place+half, 0), at(place+half, value), at(place-half, value)})
			top := value
			if s.Low != nil && s.High != nil && s.High[j] > s.Low[j] {
				low, high := max(s.Low[j], -limit), min(s.High[j], limit)
				errorBar(&c, ink, at(place, low), at(place, high), s.High[j] > limit)
				top = math.Max(top, high)
			}
			if len(b.plot.Series)*len(b.plot.Categories) <= 12 {
				b.drawValue(&c, at(place, top), shortValue(value))
			}
		}
	}
	if b.plot.reference != 0 {
		b.drawReference(&c, x, y)
	}
}

// errorLimit is where error bars are cut: at twice the longest bar, so that one that
// says next to nothing, such as an interval of 0.07 to 11 around 1, does not squeeze the
// bars. What it says stands in the table. +Inf = nowhere.
func (p *Plot) errorLimit() float64 {
	longest := 0.0
	for i := range p.Series {
		for _, v := range p.Series[i].Y {
			if finite(v) {
				longest = math.Max(longest, math.Abs(v))
			}
		}
	}
	if p.Categories == nil || longest == 0 {
		return math.Inf(1)
	}
	return 2 * longest
}

// errorBar draws a bar between two points, with a cap at each end; one that goes on
// beyond its upper end has an arrow there.
func errorBar(c *draw.Canvas, clr color.Color, low, high vg.Point, goesOn bool) {
	style := draw.LineStyle{Color: clr, Width: 1}
	const half = 3
	across, back := vg.Point{X: half}, vg.Point{Y: 2 * half}
	if low.X != high.X {
		across, back = vg.Point{Y: half}, vg.Point{X: 2 * half}
	}
	c.StrokeLines(style, []vg.Point{low, high})
	c.StrokeLines(style, []vg.Point{low.Sub(across), low.Add(across)})
	if goesOn {
		base := high.Sub(back)
		c.StrokeLines(style, []vg.Point{base.Sub(across), high, base.Add(across)})
		return
	}
	c.StrokeLines(style, []vg.Point{high.Sub(across), high.Add(across)})
}

// drawReference draws the line that the bars are compared with.
func (b bars) drawReference(c *draw.Canvas, x, y func(float64) vg.Length) {
	style := draw.LineStyle{Color: ink, Width: 1, Dashes: []vg.Length{5, 3}}
	if at := b.plot.reference; b.lying {
		c.StrokeLine2(style, x(at), c.Min.Y, x(at), c.Max.Y)
	} else {
		c.StrokeLine2(style, c.Min.X, y(at), c.Max.X, y(at))
	}
}

// drawValue writes a value at the end of its bar.
func (b bars) drawValue(c *draw.Canvas, end vg.Point, value string) {
	style := textStyle(10, ink)
	if b.lying {
		c.FillText(style, vg.Point{X: end.X + 5, Y: end.Y - 3}, value)
		return
	}
	c.FillText(style, vg.Point{X: end.X - style.Width(value)/2, Y: end.Y + 4}, value)
}

func (p *Plot) gridColumns() int {
	columns := 1
	for _, row := range p.Grid {
		columns = max(columns, len(row))
	}
	return columns
}

// drawGrid draws the map of cells, each run of equal ones in a row as one.
func (p *Plot) drawGrid(c draw.Canvas) {
	label := textStyle(11, muted)
	if p.XLabel != "" {
		c.FillText(label, vg.Point{X: c.Min.X, Y: c.Min.Y + 2}, p.XLabel)
		c.Min.Y += 20
	}
	cell := min((c.Max.X-c.Min.X)/vg.Length(p.gridColumns()), (c.Max.Y-c.Min.Y)/vg.Length(len(p.Grid)))
	gap := vg.Length(0)
	if cell > 5 {
		gap = 1
	}
	for i, row := range p.Grid {
		top := c.Max.Y - vg.Length(i)*cell
		for from := 0; from < len(row); {
			to := from + 1
			for gap == 0 && to < len(row) && row[to] == row[from] {
				to++
			}
			fill := faint
			if row[from] >= 0 {
				fill = seriesColor(row[from])
			}
			left, right, bottom := c.Min.X+vg.Length(from)*cell, c.Min.X+vg.Length(to)*cell-gap, top-cell+gap
			c.FillPolygon(fill, []vg.Point{{X: left, Y: bottom}, {X: right, Y: bottom}, {X: right, Y: top}, {X: left, Y: top}})
			from = to
		}
	}
}
