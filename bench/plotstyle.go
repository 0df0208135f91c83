package bench

import (
	"fmt"
	"html"
	"image/color"
	"regexp"
	"strings"

	stdfont "golang.org/x/image/font"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/font/liberation"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The colours of pictures on white. On a page each is a variable with a value for
// light and one for dark, see themed.
var (
	paper = color.RGBA{0xff, 0xff, 0xff, 0xff}
	ink   = color.RGBA{0x1b, 0x24, 0x2d, 0xff}
	muted = color.RGBA{0x5a, 0x67, 0x74, 0xff}
	faint = color.RGBA{0xe1, 0xe6, 0xea, 0xff}
	// After Okabe and Ito, told apart with every kind of colour vision; the yellow
	// is darkened so that it shows on white.
	palette = []color.RGBA{
		{0x00, 0x72, 0xb2, 0xff}, // blue
		{0xd5, 0x5e, 0x00, 0xff}, // vermilion
		{0x00, 0x9e, 0x73, 0xff}, // green
		{0xb2, 0x4c, 0x8e, 0xff}, // purple
		{0xb8, 0x86, 0x0b, 0xff}, // yellow
		{0x6b, 0x7a, 0x88, 0xff}, // grey
	}
	glyphs = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, diamondGlyph{}, draw.RingGlyph{}, draw.CrossGlyph{}}
)

const bold = stdfont.WeightBold

// fontCache has Liberation Sans, which the plot module carries; on a page the
// browser takes that or Arial, which is as wide.
var fontCache = font.NewCache(liberation.Collection())

func textStyle(size font.Length, c color.Color) text.Style {
	return text.Style{Color: c, Font: sans(size), Handler: text.Plain{Fonts: fontCache}}
}

func sans(size font.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

func seriesColor(i int) color.RGBA { return palette[i%len(palette)] }

// lineStyle is a series' line. When colours come round again the line is broken.
func lineStyle(i int, style Style) draw.LineStyle {
	s := draw.LineStyle{Color: seriesColor(i), Width: 2}
	if style == Dashed || i >= len(palette) {
		s.Dashes = []vg.Length{6, 4}
	}
	return s
}

// glyphStyle is the point of a series, its shape a second way to tell it.
func glyphStyle(i int) draw.GlyphStyle {
	return draw.GlyphStyle{Color: seriesColor(i), Radius: 3.5, Shape: glyphs[i%len(glyphs)]}
}

// diamondGlyph is a square on its corner.
type diamondGlyph struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (diamondGlyph) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, at vg.Point) {
	r := style.Radius * 1.3
	c.FillPolygon(style.Color, []vg.Point{{X: at.X - r, Y: at.Y}, {X: at.X, Y: at.Y - r}, {X: at.X + r, Y: at.Y}, {X: at.X, Y: at.Y + r}})
}

// svgHead is what precedes the drawing; a page needs none of its size in points.
var svgHead = regexp.MustCompile(`(?s)^.*?<svg width="([0-9.]+)pt" height="([0-9.]+)pt"[^>]*>`)

// themed turns an SVG file into an element of a page in the page's own colours.
func themed(svg, title string) string {
	svg = svgHead.ReplaceAllString(svg, fmt.Sprintf(`<svg viewBox="0 0 $1 $2" role="img" aria-label="%s" xmlns="http://www.w3.org/2000/svg">`,
		strings.ReplaceAll(html.EscapeString(title), "$", "$$")))
	names := []string{cssColor(paper), "var(--paper)", cssColor(ink), "var(--ink)", cssColor(muted), "var(--muted)", cssColor(faint), "var(--faint)"}
	for i, c := range palette {
		names = append(names, cssColor(c), fmt.Sprintf("var(--c%d)", i+1))
	}
	return strings.NewReplacer(names...).Replace(svg)
}

// cssColor spells a colour as vgsvg does.
func cssColor(c color.RGBA) string { return fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B) }
