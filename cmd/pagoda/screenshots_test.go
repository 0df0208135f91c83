//go:build screenshots

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

var imagesDir = flag.String("images", "", "directory for the screenshots of the page (default: a temporary one)")

// browser is a headless one whose console must stay silent.
type browser struct {
	t   *testing.T
	ctx context.Context
	url string
	dir string

	mu    sync.Mutex
	noise []string // what the console said, violations of the policy included
}

func openBrowser(t *testing.T, url string) *browser {
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("no chromium on the PATH")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx, url: url, dir: *imagesDir}
	if b.dir == "" {
		b.dir = t.TempDir()
	}
	require.NoError(t, os.MkdirAll(b.dir, 0o755))
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.noise = append(b.noise, m.String())
			b.mu.Unlock()
		}
	}()
	return b
}

func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, actions...))
}

// navigate loads the page on a screen of this kind.
func (b *browser) navigate(width, height int64, scale float64, scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: scale, Mobile: width < 600,
	})
	require.NoError(b.t, err)
	_, err = chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
	require.NoError(b.t, err)
	b.run(chromedp.Navigate(b.url + "/ui"))
}

// open is navigate, up to the first frame.
func (b *browser) open(width, height int64, scale float64, scheme string) {
	b.t.Helper()
	b.navigate(width, height, scale, scheme)
	b.until(`document.querySelector("#status").textContent === "live"`)
}

// until waits for an expression to become true. The page's policy forbids what
// chromedp.Poll does.
func (b *browser) until(expression string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return eval[bool](b, expression) }, time.Minute, 50*time.Millisecond, expression)
}

func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	require.NoError(b.t, err, expression)
	return v
}

func (b *browser) shoot(name string) {
	b.t.Helper()
	shot, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	require.NoError(b.t, err)
	full, err := png.Decode(bytes.NewReader(shot))
	require.NoError(b.t, err)
	var small bytes.Buffer
	require.NoError(b.t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, fewColours(full)))
	require.NoError(b.t, os.WriteFile(filepath.Join(b.dir, name+".png"), small.Bytes(), 0o644))
}

// fewColours is the picture in its 256 most frequent colours, which are nearly all
// that a drawn page has: a third of the bytes.
func fewColours(full image.Image) image.Image {
	count := map[color.RGBA]int{}
	area := full.Bounds()
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(full.At(x, y)).(color.RGBA) }
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return cmp.Compare(count[b], count[a]) })
	var palette color.Palette
	for _, c := range colours[:min(256, len(colours))] {
		palette = append(palette, c)
	}
	small, nearest := image.NewPaletted(area, palette), map[color.RGBA]uint8{}
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			c := at(x, y)
			i, known := nearest[c]
			if !known {
				i = uint8(palette.Index(c))
				nearest[c] = i
			}
			small.SetColorIndex(x, y, i)
		}
	}
	return small
}

// load keeps requests that share a long beginning running until ctx ends.
func load(ctx context.Context, t *testing.T, url string) (wait func()) {
	const shared = "You tell short stories to small children. Every story has an animal that can talk, a small problem, and a friend who helps. " +
		"Use short words and short sentences. The animal is kind. The friend is kind too. They play in the garden, in the forest, by the sea and in the snow. " +
		"At the end everyone goes home, eats soup and is happy. Never tell a sad story. Never tell a story that is longer than a page. Begin now."
	topics := []string{"a fox", "a little red boat", "a bird that could not sing", "two cats", "the moon", "a brave mouse", "a big dog", "snow", "a lost ball", "a rabbit with a hat", "a bear who lost his honey", "a train"}
	var group sync.WaitGroup
	for i := range 26 {
		group.Go(func() {
			for turn := 0; ctx.Err() == nil; turn++ {
				n := 1
				if i == 3 {
					n = 4
				}
				body, err := json.Marshal(map[string]any{
					"messages":   []map[string]string{{"role": "system", "content": shared}, {"role": "user", "content": "Tell me about " + topics[(i+5*turn)%len(topics)] + "."}},
					"max_tokens": 150 + 50*(i%7), "temperature": 0.9, "ignore_eos": true, "stream": true, "n": n, "logprobs": true, "top_logprobs": 3,
				})
				if err != nil {
					t.Error(err)
					return
				}
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	return group.Wait
}

// TestScreenshots looks at the page with a browser, while requests share a prefix:
// on a desktop, on a telephone, in the dark, by keyboard. make ui-screenshots.
func TestScreenshots(t *testing.T) {
	s := startServer(t, engine.Config{NumGPUBlocksOverride: 320, MaxNumSeqs: 26, MaxNumBatchedTokens: 128, SwapSpace: 64 << 20})
	b := openBrowser(t, s.url)
	b.open(1440, 1000, 1, "light")
	b.testKeyboard()
	b.testChat()
	ctx, stop := context.WithCancel(context.Background())
	wait := load(ctx, t, s.url)
	defer func() { stop(); wait() }()
	b.until(`document.querySelector("#gauges").textContent.match(/Preempted[1-9]/) !== null`)
	b.testBlocks()
	b.blur()
	b.shoot("page-desktop")
	b.testSteps()
	b.testRows()
	b.testInspector()
	b.shoot("page-inspector")

	b.testChoices()
	b.shoot("page-answers")
	b.open(1440, 1000, 1, "dark")
	b.say("Tell me a story about a dog.")
	b.until(`document.querySelector(".turn.assistant:not(.running) .meta button") !== null`)
	b.blur()
	b.shoot("page-dark")

	b.open(390, 844, 2, "light")
	for _, tab := range []string{"chat", "memory", "steps", "requests"} {
		b.run(chromedp.Click(chromedp.ID("tab-" + tab)))
		b.until(fmt.Sprintf(`[...document.querySelectorAll(".panel")].filter((p) => p.offsetHeight > 0).map((p) => p.id).join() === %q`, tab))
		if tab == "chat" {
			b.say("Tell me a story about the sea.")
			b.until(`document.querySelector(".turn.assistant:not(.running) .meta button") !== null`)
		}
		b.until(`document.querySelectorAll("#request-rows tr").length > 3`)
		b.blur()
		require.LessOrEqual(t, eval[int](b, `document.documentElement.scrollWidth - innerWidth`), 0, "%s is wider than a telephone", tab)
		b.shoot("phone-" + tab)
	}
	b.run(chromedp.Click(chromedp.CSS("#request-rows button")))
	b.until(`document.querySelectorAll("#inspected .token").length > 20`)
	require.LessOrEqual(t, eval[int](b, `document.querySelector("#inspector").scrollWidth - innerWidth`), 0, "the inspector is wider than a telephone")
	b.shoot("phone-inspector")
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.noise, "the console is silent")
}

// testKeyboard: everything is reached by the tabulator, in the order of reading.
func (b *browser) testKeyboard() {
	var order []string
	for range 9 {
		b.run(chromedp.KeyEvent(kb.Tab))
		id := eval[string](b, `document.activeElement.id || document.activeElement.className || document.activeElement.tagName`)
		order = append(order, id)
		require.Equal(b.t, "solid", eval[string](b, `getComputedStyle(document.activeElement).outlineStyle`), "the focus on %s is seen", id)
	}
	require.Equal(b.t, "skip pause clear talk prompt send SUMMARY blocks-map steps-chart", strings.Join(order, " "))
}

// say types a message and the Enter key, whose character does not come once the key
// is handled.
func (b *browser) say(text string) {
	b.t.Helper()
	b.run(chromedp.SendKeys(chromedp.ID("prompt"), text))
	_, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, input.DispatchKeyEventParams{
		Type: input.DispatchKeyEventTypeRawKeyDown, Key: "Enter", Code: "Enter", WindowsVirtualKeyCode: 13,
	})
	require.NoError(b.t, err)
	require.Empty(b.t, eval[string](b, `document.querySelector("#prompt").value`), "it was sent")
}

func (b *browser) blur() { eval[any](b, `document.activeElement.blur()`) }

// testChat: two answers come, with their speed, the second with a cached prefix.
func (b *browser) testChat() {
	b.say("Tell me a story about a fox and a bird.")
	b.until(`document.querySelector(".turn.assistant:not(.running) .meta button") !== null`)
	meta := `[...document.querySelectorAll(".turn.assistant .meta")].at(-1).textContent`
	require.Regexp(b.t, `first token .*s · [\d.,]+ tok/s · \d+ tokens`, eval[string](b, meta))
	b.say("What did the bird say then?")
	b.until(`document.querySelectorAll(".turn.assistant:not(.running) .meta button").length === 2`)
	require.Regexp(b.t, `\d+ of \d+ prompt tokens cached`, eval[string](b, meta))
}

// testChoices: several answers to one prompt, drawn as the form says.
func (b *browser) testChoices() {
	b.run(chromedp.Click(chromedp.ID("inspector-close")), chromedp.Click(chromedp.ID("clear")), chromedp.Click(chromedp.CSS("#sampling summary")),
		chromedp.SetValue(chromedp.CSS("[name=n]"), "3"), chromedp.SetValue(chromedp.CSS("[name=max_tokens]"), "30"))
	b.say("Tell me about the sun.")
	b.until(`document.querySelectorAll(".turn.assistant:not(.running) .meta button").length === 3`)
}

// TestKeyDialog: with a key nothing is shown without it.
func TestKeyDialog(t *testing.T) {
	s := startServer(t, engine.Config{NumGPUBlocksOverride: 64, MaxNumSeqs: 2}, "secret")
	b := openBrowser(t, s.url)
	b.navigate(1000, 700, 1, "light")
	b.until(`document.querySelector("#key-dialog").open`)
	b.shoot("key")
	require.Empty(t, eval[string](b, `document.querySelector("#pool").textContent`))
	try := func(key string) {
		b.run(chromedp.SendKeys(chromedp.ID("key-input"), key), chromedp.Click(chromedp.CSS("#key-form button")))
	}
	try("wrong")
	b.until(`document.querySelector("#key-error").textContent === "This key is not accepted."`)
	try("secret")
	b.until(`document.querySelector("#status").textContent === "live"`)
	b.say("Hello")
	b.until(`document.querySelector(".turn.assistant:not(.running) .meta button") !== null`)
	require.Equal(t, "secret", eval[string](b, `sessionStorage.getItem("pagoda-api-key")`))
	require.Zero(t, eval[int](b, `localStorage.length + document.cookie.length`))
}

// testBlocks: the arrow keys find a block that is shared, and the map says whose it
// is.
func (b *browser) testBlocks() {
	b.run(chromedp.Focus(chromedp.ID("blocks-map")))
	for range 100 {
		b.run(chromedp.KeyEvent(kb.ArrowRight))
		detail := eval[string](b, `document.querySelector("#block-detail").textContent`)
		if strings.Contains(detail, "sequences ") {
			require.Regexp(b.t, `Block \d+ sequences \d+, \d+.* · \d+ references · 16 of 16 slots · hash [0-9a-f]{12}… · content .* old`, detail)
			b.run(chromedp.KeyEvent(kb.Escape))
			return
		}
	}
	require.FailNow(b.t, "no shared block among the first 100")
}

// testSteps: the arrow keys walk through the steps, which say what they were.
func (b *browser) testSteps() {
	b.run(chromedp.Focus(chromedp.ID("steps-chart")), chromedp.KeyEvent(kb.ArrowLeft), chromedp.KeyEvent(kb.ArrowLeft))
	require.Regexp(b.t, `Step [\d,]+ · .*running.*(decode|prefill) \d+`, eval[string](b, `document.querySelector("#step-detail").textContent`))
}

// testRows: a row is the same element after a frame, none moves while one is pressed,
// and the focus returns to the one that was chosen.
func (b *browser) testRows() {
	eval[any](b, `frames = 0; new MutationObserver(() => frames++).observe(document.querySelector("#blocks-map"), { attributeFilter: ["aria-label"] });
		rows = document.querySelector("#request-rows"); chosen = rows.querySelector("button"); row = chosen.closest("tr");
		row.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true })); before = [...rows.children]; null`)
	b.until(`frames >= 3`)
	require.True(b.t, eval[bool](b, `before.length === rows.children.length && before.every((tr, i) => tr === rows.children[i])`), "no row moves under a finger")
	eval[any](b, `row.dispatchEvent(new PointerEvent("pointerup", { bubbles: true })); chosen.focus(); frames = 0; null`)
	b.until(`frames >= 3`)
	require.True(b.t, eval[bool](b, `chosen.isConnected && chosen.closest("tr") === row && document.activeElement === chosen`), "it is the same row")
	eval[any](b, `chosen.click(); frames = 0; null`)
	b.until(`frames >= 3 && document.querySelector("#inspected .facts") !== null`)
	b.run(chromedp.Click(chromedp.ID("inspector-close")))
	require.True(b.t, eval[bool](b, `document.activeElement === chosen`), "the focus returns")
}

// testInspector opens the first answer of the chat.
func (b *browser) testInspector() {
	b.run(chromedp.Click(chromedp.CSS(".turn.assistant .meta button")))
	b.until(`document.querySelectorAll("#inspected .token").length > 20`)
	b.run(chromedp.Focus(chromedp.CSS("#inspected .tokens")), chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.ArrowRight))
	text := eval[string](b, `document.querySelector("#inspected").innerText`)
	for _, want := range []string{"Token 2:", "likeliest:", "admitted", "prefill", "decode", "Prompt as rendered", "fox and a bird", "Time to first token"} {
		require.Contains(b.t, text, want)
	}
}
