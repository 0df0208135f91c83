package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// asked sends a request with a key.
func asked(h http.Handler, method, path, body, key string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+key)
	return recordRequest(h, req)
}

type requestList struct{ Requests []shownRequest }

// TestInspector: what was sent, as the model got it, what came out, and how it lived.
func TestInspector(t *testing.T) {
	f := newFakeEngine("ok")
	f.sequence = 7
	began := time.Now()
	step := func(n int64, after time.Duration, r scheduler.Record) {
		r.Step = n
		f.steps = append(f.steps, engine.StepRecord{Record: r, Start: began.Add(after), Device: time.Millisecond})
	}
	step(1, time.Second, scheduler.Record{Head: 7, WaitReason: scheduler.WaitBlocks})
	step(2, 2*time.Second, scheduler.Record{Head: 7, WaitReason: scheduler.WaitBlocks})
	ran := func(start, tokens int) []scheduler.RecordScheduled {
		return []scheduler.RecordScheduled{{ID: 7, Start: start, Tokens: tokens}}
	}
	step(3, 3*time.Second, scheduler.Record{Admitted: []scheduler.RecordAdmission{{ID: 7, How: scheduler.Fresh, Hit: 16}, {ID: 8}}, Scheduled: ran(16, 20)})
	for n := range int64(4) {
		step(4+n, 4*time.Second, scheduler.Record{Scheduled: ran(36+int(n), 1), Decodes: 1})
	}
	step(8, 5*time.Second, scheduler.Record{Decisions: []engine.Decision{{Means: scheduler.BySwap, Seq: 9, For: 7}, {Means: scheduler.BySwap, Seq: 7, For: 9}}})
	step(12, 6*time.Second, scheduler.Record{Admitted: []scheduler.RecordAdmission{{ID: 7, How: scheduler.SwappedIn}}})
	explain := func(r *engine.StepRecord) []string {
		return []string{"", fmt.Sprintf("%d admitted, %d preempted", len(r.Admitted), len(r.Decisions))}
	}
	h := newTestServer(t, f, Config{Explain: explain}).Handler()
	sent := time.Now()
	w := do(h, "POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"héllo \n world"}],"logprobs":true,"top_logprobs":2,"temperature":0.5,"seed":4}`)
	answered := time.Now()
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	id := decode[struct{ ID string }](t, w.Body.String()).ID

	list := decode[requestList](t, do(h, "GET", "/ui/api/requests", "").Body.String()).Requests
	require.Len(t, list, 1)
	prompt := len("<|im_start|>user\nh") - len("<|im_start|>") + 1 + len("éllo \n world\n") + 1 + 1 + len("assistant\n")
	require.Equal(t, id, list[0].ID)
	require.Equal(t, "héllo world", list[0].Subject)
	require.Equal(t, []int{prompt, 3, prompt / 2}, []int{list[0].Prompt, list[0].Output, list[0].Cached})
	require.Equal(t, "stop", list[0].Finish)
	require.Positive(t, list[0].TTFTMs)

	got := decode[shownDetail](t, do(h, "GET", "/ui/api/requests/"+id, "").Body.String())
	require.Equal(t, "<|im_start|>user\nhéllo \n world<|im_end|>\n<|im_start|>assistant\n", got.Text)
	require.InDelta(t, 0.5, got.Sampling.Temperature, 1e-6)
	require.EqualValues(t, 4, *got.Sampling.Seed)
	require.Len(t, got.Prompts[0].Tokens, prompt)
	require.Equal(t, shownToken{ID: startID, Text: "<|im_start|>", Special: true}, got.Prompts[0].Tokens[0])
	require.Equal(t, `\xC3`, got.Prompts[0].Tokens[7].Text, "half a character")
	out := got.ChoiceList[0]
	require.EqualValues(t, 7, out.Sequence)
	require.Equal(t, []int32{'o', 'k', eosID}, []int32{out.Tokens[0].ID, out.Tokens[1].ID, out.Tokens[2].ID})
	require.InDelta(t, -0.5, *out.Tokens[0].Logprob, 1e-6)
	require.Equal(t, []string{"o", "p"}, []string{out.Tokens[0].Top[0].Text, out.Tokens[0].Top[1].Text})
	var life []string
	for _, e := range out.Life {
		life = append(life, fmt.Sprintf("%s %d–%d %d %s", e.Kind, e.From, e.To, e.Tokens, e.Text))
	}
	require.Equal(t, []string{
		"wait 0–0 0 ", "wait 1–2 0 kv blocks", "admit 3–3 0 1 admitted, 0 preempted", "prefill 3–3 20 [16,36)",
		"decode 4–7 4 ", "preempt 8–8 0 0 admitted, 1 preempted", "wait 0–0 0 ", "admit 12–12 0 1 admitted, 0 preempted",
	}, life)
	require.False(t, out.LifeCut)
	require.GreaterOrEqual(t, out.Life[1].FromMs, ms(time.Second-answered.Sub(began)), "since the request arrived")
	require.LessOrEqual(t, out.Life[1].FromMs, ms(time.Second-sent.Sub(began)))
	require.Equal(t, got.EncodeMs, out.Life[0].FromMs, "it waits from the beginning, also behind others")
	for _, i := range []int{0, 1, 6} {
		require.Equal(t, out.Life[i+1].FromMs, out.Life[i].ToMs, "a wait lasts until what comes next")
	}
	require.Equal(t, out.Life[5].FromMs, out.Life[6].FromMs, "and begins with the preemption")

	f.steps = f.steps[4:] // the ring went on
	got = decode[shownDetail](t, do(h, "GET", "/ui/api/requests/"+id, "").Body.String())
	require.True(t, got.ChoiceList[0].LifeCut)
	require.Equal(t, http.StatusNotFound, do(h, "GET", "/ui/api/requests/other", "").Code)
}

// TestInspectorShowsOwnRequests: a key sees the prompts that it sent.
func TestInspectorShowsOwnRequests(t *testing.T) {
	h := newTestServer(t, newFakeEngine("x"), Config{APIKeys: []string{"a", "b"}}).Handler()
	body := asked(h, "POST", "/v1/completions", `{"prompt":"secret"}`, "a").Body.String()
	id := decode[struct{ ID string }](t, body).ID
	require.Len(t, decode[requestList](t, asked(h, "GET", "/ui/api/requests", "", "a").Body.String()).Requests, 1)
	require.Empty(t, decode[requestList](t, asked(h, "GET", "/ui/api/requests", "", "b").Body.String()).Requests)
	require.Contains(t, asked(h, "GET", "/ui/api/requests/"+id, "", "a").Body.String(), "secret")
	w := asked(h, "GET", "/ui/api/requests/"+id, "", "b")
	require.Equal(t, http.StatusNotFound, w.Code)
	require.NotContains(t, w.Body.String(), "secret")
}

// TestInspectorIsBounded: the last requests are kept, and of each a bounded part.
func TestInspectorIsBounded(t *testing.T) {
	f := newFakeEngine("")
	f.info.MaxModelLen, f.info.PoolTokens = 1<<20, 1<<20
	f.reply = func(r engine.Request) []int32 { return ids(strings.Repeat("y", r.MaxTokens)) }
	s := newTestServer(t, f, Config{})
	h := s.Handler()
	for i := range keptRequests + 5 {
		require.Equal(t, http.StatusOK, do(h, "POST", "/v1/completions", fmt.Sprintf(`{"prompt":"number %d","max_tokens":2}`, i)).Code)
	}
	list := decode[requestList](t, do(h, "GET", "/ui/api/requests", "").Body.String()).Requests
	require.Len(t, list, keptRequests)
	require.Equal(t, fmt.Sprintf("number %d", keptRequests+4), list[0].Subject, "the newest first")

	long := strings.Repeat("z", keptTextBytes+100)
	w := do(h, "POST", "/v1/completions", fmt.Sprintf(`{"prompt":%q,"max_tokens":%d,"n":2,"logprobs":20}`, long, keptOutputIDs))
	require.Equal(t, http.StatusOK, w.Code)
	id := decode[struct{ ID string }](t, w.Body.String()).ID
	got := decode[shownDetail](t, do(h, "GET", "/ui/api/requests/"+id, "").Body.String())
	require.Equal(t, []int{keptTextBytes, 100}, []int{len(got.Text), got.TextCut})
	require.Equal(t, []int{keptPromptIDs, len(long)}, []int{len(got.Prompts[0].Tokens), got.Prompts[0].Total})
	require.Equal(t, 2*keptOutputIDs, got.Output)
	require.Equal(t, keptOutputIDs, len(got.ChoiceList[0].Tokens)+len(got.ChoiceList[1].Tokens))
	most := 0
	for _, c := range got.ChoiceList {
		for _, token := range c.Tokens {
			most = max(most, len(token.Top))
		}
	}
	require.Equal(t, keptTopPerID, most)
	require.LessOrEqual(t, len([]rune(got.Subject)), 120)
}

// TestInspectorWhileItRuns: a request is seen before it ends, and how it ended after
// its client left.
func TestInspectorWhileItRuns(t *testing.T) {
	f := newFakeEngine("abc")
	f.gate = make(chan struct{})
	s := serve(t, f, Config{}, nil)
	resp := make(chan *http.Response, 1)
	go func() {
		r, err := s.post(t, t.Context(), `{"prompt":"x","stream":true}`)
		if err == nil {
			resp <- r
		}
	}()
	f.gate <- struct{}{}
	r := <-resp
	one := func() shownRequest {
		list := decode[requestList](t, do(s.Handler(), "GET", "/ui/api/requests", "").Body.String()).Requests
		require.Len(t, list, 1)
		return list[0]
	}
	require.Equal(t, []any{1, ""}, []any{one().Output, one().Finish})
	r.Body.Close()
	eventually(t, "it is told as aborted", func() bool { return one().Finish == "abort" })
}

// TestInspectorForgetsWhatEnded: what runs stays, and the one that came last is kept.
func TestInspectorForgetsWhatEnded(t *testing.T) {
	in := &inspector{}
	send := func(id string) *inspectedChoice {
		c := &choice{}
		in.add(&generation{id: id, r: &request{}, choices: []*choice{c}})
		return c.inspected
	}
	ids := func() (ids []string) {
		for _, q := range in.kept {
			ids = append(ids, q.id)
		}
		return ids
	}
	first, second := send("first"), send("second")
	for i := range keptRequests {
		send(fmt.Sprint(i))
	}
	kept := ids()
	require.Len(t, kept, keptRequests)
	require.Equal(t, []string{"first", "second", "0"}, kept[:3])
	require.Equal(t, fmt.Sprint(keptRequests-1), kept[keptRequests-1])
	second.end(engine.FinishStop, 0)
	send("last")
	require.Equal(t, append([]string{"first"}, kept[2:]...), ids()[:keptRequests-1], "what ended goes first")
	first.end(engine.FinishStop, 0)
	send("more")
	require.Equal(t, "0", ids()[0])
}

// TestInspectorBeginsWithEveryRoute: all routes that generate are kept.
func TestInspectorBeginsWithEveryRoute(t *testing.T) {
	h := newTestServer(t, newFakeEngine("x"), Config{}).Handler()
	for path, body := range map[string]string{
		"/v1/messages":         `{"messages":[{"role":"user","content":"to messages"}],"max_tokens":5}`,
		"/v1/responses":        `{"input":"to responses"}`,
		"/v1/completions":      `{"prompt":"to completions"}`,
		"/v1/chat/completions": `{"messages":[{"role":"user","content":"to chat"}]}`,
	} {
		require.Equal(t, http.StatusOK, do(h, "POST", path, body).Code, path)
	}
	var subjects []string
	for _, q := range decode[requestList](t, do(h, "GET", "/ui/api/requests", "").Body.String()).Requests {
		subjects = append(subjects, q.Subject)
	}
	slices.Sort(subjects)
	require.Equal(t, []string{"to chat", "to completions", "to messages", "to responses"}, subjects)
}
