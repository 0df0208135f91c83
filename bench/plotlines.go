package bench

import (
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// manyPoints is from when on a line is drawn without its points.
const manyPoints = 40

// addLines puts the series over numbers into the figure.
func (p *Plot) addLines(figure *plot.Plot, width vg.Length) {
	logX, logY := p.LogX && p.positive(true), p.LogY && p.positive(false)
	p.scaleX(figure, logX, width)
	p.scaleY(&figure.Y, logY)
	figure.Add(gridLines{vertical: p.LogX && p.LogY})
	var labels pointLabels
	for i := range p.Series {
		line := seriesLine{series: &p.Series[i], index: i}
		for j, y := range line.series.Y {
			// What was not measured is a gap.
			if finite(line.series.X[j]) && finite(y) {
				line.points = append(line.points, j)
			}
		}
		figure.Add(line)
		labels = append(labels, line)
	}
	figure.Add(labels)
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// positive says whether an axis can be logarithmic.
func (p *Plot) positive(x bool) bool {
	low, high := p.bounds(x)
	return low > 0 && finite(high)
}

// bounds are the least and greatest value on an axis, error bars included, where they
// are not cut.
func (p *Plot) bounds(x bool) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	limit := p.errorLimit()
	for i := range p.Series {
		s := &p.Series[i]
		values := [][]float64{s.X}
		if !x {
			values = [][]float64{s.Y, s.Low, s.High}
		}
		for _, v := range slices.Concat(values...) {
			if finite(v) {
				low, high = math.Min(low, max(v, -limit)), math.Max(high, min(v, limit))
			}
		}
	}
	if low > high {
		return 0, 1
	}
	return low, high
}

// scaleX fits the axis to the values, with ticks at them.
func (p *Plot) scaleX(figure *plot.Plot, logarithmic bool, width vg.Length) {
	low, high := p.bounds(true)
	var values []float64
	for i := range p.Series {
		if s := &p.Series[i]; s.Style == LinePoints || s.Style == Points {
			values = append(values, s.X...)
		}
	}
	axis := &figure.X
	width -= 70 // what the other axis takes, about
	if logarithmic {
		axis.Scale = plot.LogScale{}
		ticks := valueTicks(values, math.Log, width)
		switch {
		case p.LogY, ticks == nil && high > low*(1<<12):
			ticks = logTicks(low, high, 10)
		case ticks == nil:
			ticks = logTicks(low, high, 2)
		}
		axis.Tick.Marker = ticks
		if low == high {
			low, high = low/2, high*2
		}
		axis.Min, axis.Max = low/math.Pow(high/low, 0.03), high*math.Pow(high/low, 0.03)
		return
	}
	ticks := valueTicks(values, func(v float64) float64 { return v }, width)
	if ticks == nil {
		n := 8
		if width < 400 {
			n = 5
		}
		ticks, _, _ = niceTicks(low, high, n)
		ticks = slices.DeleteFunc(ticks, func(t plot.Tick) bool { return t.Value < low || t.Value > high })
	}
	axis.Tick.Marker = ticks
	if low == high {
		low, high = low-1, high+1
	}
	axis.Min, axis.Max = low-0.03*(high-low), high+0.03*(high-low)
}

// scaleY fits the value axis. It begins at zero unless it is logarithmic: cut
// off, it would make differences look larger than they are.
func (p *Plot) scaleY(axis *plot.Axis, logarithmic bool) {
	low, high := p.bounds(false)
	if logarithmic {
		axis.Scale = plot.LogScale{}
		if low == high {
			low, high = low/2, high*2
		}
		axis.Min, axis.Max = low/1.2, high*1.2
		axis.Tick.Marker = logTicks(axis.Min, axis.Max, 10)
		return
	}
	var ticks fixedTicks
	ticks, axis.Min, axis.Max = niceTicks(math.Min(low, 0), math.Max(high, 0), 5)
	axis.Tick.Marker = ticks
}

// gridLines are faint lines at the ticks of the value axis.
type gridLines struct {
	vertical bool // also at the ticks below
	across   bool // only at these: the bars lie
}

// Plot implements plot.Plotter.
func (g gridLines) Plot(c draw.Canvas, figure *plot.Plot) {
	x, y := figure.Transforms(&c)
	style := draw.LineStyle{Color: faint, Width: 0.75}
	if g.vertical || g.across {
		for _, t := range figure.X.Tick.Marker.Ticks(figure.X.Min, figure.X.Max) {
			if at := x(t.Value); c.ContainsX(at) {
				c.StrokeLine2(style, at, c.Min.Y, at, c.Max.Y)
			}
		}
	}
	if g.across {
		return
	}
	for _, t := range figure.Y.Tick.Marker.Ticks(figure.Y.Min, figure.Y.Max) {
		if at := y(t.Value); c.ContainsY(at) {
			c.StrokeLine2(style, c.Min.X, at, c.Max.X, at)
		}
	}
}

// seriesLine draws one series: error bars, line, points.
type seriesLine struct {
	series *Series
	index  int
	points []int // of the series, those that were measured
}

// Plot implements plot.Plotter.
func (l seriesLine) Plot(c draw.Canvas, figure *plot.Plot) {
	x, y := figure.Transforms(&c)
	s := l.series
	at := func(j int) vg.Point { return vg.Point{X: x(s.X[j]), Y: y(s.Y[j])} }
	if s.Low != nil && s.High != nil {
		for _, j := range l.points {
			if s.High[j] > s.Low[j] {
				errorBar(&c, seriesColor(l.index), vg.Point{X: x(s.X[j]), Y: y(s.Low[j])}, vg.Point{X: x(s.X[j]), Y: y(s.High[j])}, false)
			}
		}
	}
	if s.Style != Points {
		var line []vg.Point
		for _, j := range l.points {
			line = append(line, at(j))
		}
		style := lineStyle(l.index, s.Style)
		if len(line) > manyPoints {
			style.Width = 1.25
		}
		c.StrokeLines(style, c.ClipLinesXY(line)...)
	}
	if s.Style == Points || s.Style == LinePoints && len(l.points) <= manyPoints {
		for _, j := range l.points {
			c.DrawGlyph(glyphStyle(l.index), at(j))
		}
	}
}

// pointLabels writes the names of points where there is room beside them.
type pointLabels []seriesLine

// Plot implements plot.Plotter.
func (lines pointLabels) Plot(c draw.Canvas, figure *plot.Plot) {
	x, y := figure.Transforms(&c)
	at := func(s *Series, j int) vg.Point { return vg.Point{X: x(s.X[j]), Y: y(s.Y[j])} }
	var taken []vg.Rectangle
	for _, line := range lines {
		for n, j := range line.points {
			to := at(line.series, j)
			from := to
			if line.series.Style != Points && n > 0 {
				from = at(line.series, line.points[n-1])
			}
			taken = append(taken, along(from, to)...)
		}
	}
	style := textStyle(10, ink)
	for _, line := range lines {
		for _, j := range line.points {
			if line.series.Labels == nil || line.series.Labels[j] == "" {
				continue
			}
			label := line.series.Labels[j]
			if box, ok := placeLabel(&c, at(line.series, j), style.Width(label), taken); ok {
				c.FillText(style, vg.Point{X: box.Min.X, Y: box.Min.Y + 2}, label)
				drawLeader(&c, at(line.series, j), box)
				const apart = 4 // from the next name
				box.Min.X, box.Max.X = box.Min.X-apart, box.Max.X+apart
				taken = append(taken, box)
			}
		}
	}
}

// drawLeader joins a point with a name that found no room close to it.
func drawLeader(c *draw.Canvas, at vg.Point, box vg.Rectangle) {
	to := vg.Point{X: min(max(at.X, box.Min.X), box.Max.X), Y: min(max(at.Y, box.Min.Y), box.Max.Y)}
	if math.Hypot(float64(to.X-at.X), float64(to.Y-at.Y)) > 10 {
		c.StrokeLine2(draw.LineStyle{Color: muted, Width: 0.5}, at.X, at.Y, to.X, to.Y)
	}
}

// along covers a line between two points with small boxes.
func along(from, to vg.Point) (boxes []vg.Rectangle) {
	const half = 3
	steps := 1 + int(math.Hypot(float64(to.X-from.X), float64(to.Y-from.Y))/(2*half))
	for i := 1; i <= steps; i++ {
		part := vg.Length(i) / vg.Length(steps)
		at := vg.Point{X: from.X + part*(to.X-from.X), Y: from.Y + part*(to.Y-from.Y)}
		boxes = append(boxes, vg.Rectangle{Min: vg.Point{X: at.X - half, Y: at.Y - half}, Max: vg.Point{X: at.X + half, Y: at.Y + half}})
	}
	return boxes
}

// placeLabel finds a place around a point that is free and inside, the nearer the
// better.
func placeLabel(c *draw.Canvas, at vg.Point, width vg.Length, taken []vg.Rectangle) (vg.Rectangle, bool) {
	const height = 11
	for _, away := range []vg.Length{5, 18, 32} {
		for _, corner := range []vg.Point{
			{X: at.X + away, Y: at.Y + away - 3}, {X: at.X - width/2, Y: at.Y + away}, {X: at.X - away - width, Y: at.Y + away - 3},
			{X: at.X + away, Y: at.Y - height - away + 3}, {X: at.X - width/2, Y: at.Y - height - away}, {X: at.X - away - width, Y: at.Y - height - away + 3},
		} {
			box := vg.Rectangle{Min: corner, Max: vg.Point{X: corner.X + width, Y: corner.Y + height}}
			free := c.Contains(box.Min) && c.Contains(box.Max)
			for _, other := range taken {
				free = free && (box.Max.X < other.Min.X || box.Min.X > other.Max.X || box.Max.Y < other.Min.Y || box.Min.Y > other.Max.Y)
			}
			if free {
				return box, true
			}
		}
	}
	return vg.Rectangle{}, false
}
