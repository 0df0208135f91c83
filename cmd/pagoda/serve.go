package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/internal/otlp"
	"github.com/pagoda-engine/pagoda/internal/server"
	"github.com/pagoda-engine/pagoda/internal/sim"
)

// serveFlags are the flags of pagoda serve.
type serveFlags struct {
	engineFlags
	model   string
	host    string
	port    int
	apiKeys []string
	names   []string
	drain   time.Duration

	certFile, keyFile       string
	saltByKey               bool
	logRequests, noLogStats bool
	tracesTo                string
	stall                   time.Duration
	onStall, dumpDir        string
	autoToolChoice          bool
	toolParser              string
	ui                      bool
	profile                 serveProfile
}

func serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve [MODEL]",
		Short: "Serve the OpenAI API",
		Long: `Serve /v1/chat/completions, /v1/completions, /v1/responses, /v1/models, Anthropic's
/v1/messages, /tokenize, /detokenize, the probes /health, /livez and /readyz, and
Prometheus' /metrics, and a page at /ui that shows what the engine does. Tool calls in
the Hermes form, as Qwen2.5 writes them, are parsed.

The first SIGTERM or Ctrl-C lets open requests end (--drain-timeout); a second one ends
at once.`,
		Example: `  pagoda serve demo
  pagoda serve ./Qwen2.5-0.5B-Instruct --port 8000
  curl -s localhost:8000/v1/chat/completions \
    -H 'Content-Type: application/json' \
    -d '{"model":"demo","messages":[{"role":"user","content":"Hi"}]}'`,
		Args: exactly(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && f.model != "" && f.model != args[0]:
				return usageError{fmt.Errorf("MODEL %s, but --model %s: give one of them", args[0], f.model)}
			case len(args) == 1:
				f.model = args[0]
			case f.model == "":
				return usageError{errors.New("no MODEL; usage: " + cmd.UseLine() + ", for instance pagoda serve demo")}
			}
			return f.serve(cmd, f.model)
		},
	}
	f.engineFlags.register(cmd.Flags(), 256)
	flags := cmd.Flags()
	flags.StringVar(&f.model, "model", "", "MODEL, for a --config file or vLLM's scripts")
	flags.StringVar(&f.host, "host", "127.0.0.1", "address to listen on; 0.0.0.0 for every interface")
	flags.IntVar(&f.port, "port", 8000, "port to listen on; 0 takes a free one")
	flags.StringArrayVar(&f.apiKeys, "api-key", nil, "key that /v1/ requests must bring (repeatable)")
	flags.StringArrayVar(&f.names, "served-model-name", nil, "name of the model in the API (repeatable; default: MODEL)")
	flags.BoolVar(&f.parseSpecial, "allow-special-tokens-in-content", false, "let special-token text in messages become control tokens: clients can forge turns")
	flags.StringVar(&f.certFile, "ssl-certfile", "", "PEM file with the certificate, for HTTPS")
	flags.StringVar(&f.keyFile, "ssl-keyfile", "", "PEM file with the certificate's private key")
	flags.BoolVar(&f.saltByKey, "salt-cache-by-key", false, "give each API key cached prefixes of its own: clients cannot learn from times what others asked")
	flags.BoolVar(&f.logRequests, "enable-log-requests", false, "write a line for each request: ids, counts and times, no text")
	flags.BoolVar(&f.noLogStats, "disable-log-stats", false, "leave out the line of throughput and cache use every 5 s")
	flags.BoolVar(&f.autoToolChoice, "enable-auto-tool-choice", true, "accepted for vLLM's sake: tool calls are always parsed")
	flags.StringVar(&f.toolParser, "tool-call-parser", "hermes", "form of tool calls: hermes, which Qwen2.5 has, too")
	flags.BoolVar(&f.ui, "ui", true, "show the page at /ui: chat, KV blocks, scheduler, requests; --no-ui keeps nothing for it")
	flags.DurationVar(&f.drain, "drain-timeout", 30*time.Second, "how long open requests may go on at the end; 0s: they are cut at once, with an error")
	flags.DurationVar(&f.stall, "watchdog-timeout", 120*time.Second, "how long the engine may go without a step while requests are there")
	choose(flags, &f.onStall, "watchdog-policy", "wait", "what follows a hang, after the dump and readiness off; wait: /livez fails, for a supervisor to see", "wait", "exit")
	flags.StringVar(&f.dumpDir, "watchdog-dump-dir", "", "where the state of an engine that hangs or fails is written, for pagoda trace (default: the directory for temporary files)")
	flags.StringVar(&f.tracesTo, "otlp-traces-endpoint", "", "send a span of each request to this OpenTelemetry collector (OTLP/HTTP, JSON), such as http://localhost:4318/v1/traces")
	f.profile.register(flags)
	registerForeign(flags)
	addNegations(flags)
	return cmd
}

func (f *serveFlags) serve(cmd *cobra.Command, model string) error {
	if f.toolParser != "hermes" {
		return usageError{fmt.Errorf("--tool-call-parser %s: only hermes is supported", f.toolParser)}
	}
	if f.stall < time.Second {
		return usageError{fmt.Errorf("--watchdog-timeout %v: want at least 1s", f.stall)}
	}
	if f.drain < 0 {
		return usageError{fmt.Errorf("--drain-timeout %v: want 0s or more", f.drain)}
	}
	if slices.Contains(f.apiKeys, "") {
		return usageError{errors.New("--api-key is empty (it may come from PAGODA_API_KEY): give a key, or leave it out for none")}
	}
	if slices.Contains(f.names, "") {
		return usageError{errors.New("--served-model-name is empty: give a name, or leave it out for MODEL")}
	}
	if err := checkForeign(cmd, os.Stderr); err != nil {
		return err
	}
	if err := f.profile.resolve(); err != nil {
		return err
	}
	secure, err := f.tls()
	if err != nil {
		return err
	}
	var traces server.Traces
	if f.tracesTo != "" {
		exporter, err := otlp.New(f.tracesTo, "pagoda", f.logger())
		if err != nil {
			return usageError{fmt.Errorf("--otlp-traces-endpoint: %w", err)}
		}
		defer exporter.Close()
		traces = exporter
	}
	// The port is taken first: a busy one should not cost a model's loading.
	listener, err := net.Listen("tcp", net.JoinHostPort(f.host, strconv.Itoa(f.port)))
	if err != nil {
		return usageError{fmt.Errorf("%w: choose another --port or --host", err)}
	}
	defer listener.Close()
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	s, err := f.open(cmd, model)
	if err != nil {
		return err
	}
	srv, err := f.newServer(s, model, traces)
	if err != nil {
		s.close()
		return err
	}
	if !f.quiet {
		f.announce(srv, listener)
	}
	drain, stop, cancel := drainThenStop(cmd.Context())
	defer cancel()
	err = srv.Serve(drain, stop, listener)
	patience := 10 * time.Second
	if stop.Err() != nil || errors.Is(err, server.ErrStalled) {
		patience = time.Second
	}
	s.leave(patience)
	return err
}

// tls reads the certificate; nil without one.
func (f *serveFlags) tls() (*tls.Config, error) {
	if f.certFile == "" && f.keyFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("--ssl-certfile and --ssl-keyfile: %w", err)}
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// servedNames are the names of MODEL in the API, the one that answers bear first. A
// path is a poor name to type, so its last part comes before it; a model of the hub
// goes by its full name, as with vLLM.
func servedNames(model string, fromHub bool) []string {
	trimmed := strings.TrimSuffix(model, "/")
	i := strings.LastIndexByte(trimmed, '/')
	switch last := trimmed[i+1:]; {
	case i < 0:
		return []string{trimmed}
	case fromHub:
		return []string{model, last}
	default:
		return []string{last, model}
	}
}

func (f *serveFlags) newServer(s *session, model string, traces server.Traces) (*server.Server, error) {
	names := f.names
	if len(names) == 0 {
		names = servedNames(model, s.fromHub)
	}
	e := server.AdaptEngine(s.engine)
	if f.generation == "vllm" {
		e = plainDefaults{e}
	}
	var t server.Tokenizer
	if s.tokenizer != nil {
		t = server.AdaptTokenizer(s.tokenizer)
	}
	var template server.Template
	if s.template != nil {
		template = s.template
	}
	return server.New(server.Config{
		ModelNames: names, APIKeys: f.apiKeys, AllowSpecialTokensInContent: f.parseSpecial,
		SaltCacheByKey: f.saltByKey, LogRequests: f.logRequests, DisableLogStats: f.noLogStats,
		Traces: traces, StallTimeout: f.stall, ExitOnStall: f.onStall == "exit", DumpDir: f.dumpDir,
		DrainTimeout: f.drainLimit(), Version: version, Log: s.log,
		DisableUI: !f.ui, Explain: sim.Explain,
		Profile: f.profile.config,
	}, e, t, template)
}

// drainLimit is --drain-timeout for a server.Config, whose 0 is the default.
func (f *serveFlags) drainLimit() time.Duration {
	if f.drain == 0 {
		return -1
	}
	return f.drain
}

// plainDefaults is an engine without the model's recommended sampling.
type plainDefaults struct{ server.Engine }

// Info implements server.Engine.
func (p plainDefaults) Info() server.Info {
	info := p.Engine.Info()
	info.Generation = server.Generation{}
	return info
}

// announce prints the defaults of requests and where to send them.
func (f *serveFlags) announce(srv *server.Server, listener net.Listener) {
	defaults := bench.NewTable(os.Stderr)
	defaults.AppendHeader(table.Row{"request default", "value", "because"})
	for _, d := range srv.Defaults() {
		defaults.AppendRow(table.Row{d.Name, d.Value, d.Reason})
	}
	defaults.Render()
	if host, _, err := net.SplitHostPort(listener.Addr().String()); err == nil && len(f.apiKeys) == 0 {
		if ip := net.ParseIP(host); ip != nil && !ip.IsLoopback() {
			fmt.Fprintf(os.Stderr, "warning: %s is open to the network without --api-key\n", listener.Addr())
		}
	}
	scheme := "http"
	if f.certFile != "" {
		scheme = "https"
	}
	fmt.Fprintf(os.Stderr, "serving %s://%s/v1\n", scheme, listener.Addr())
	if f.ui {
		fmt.Fprintf(os.Stderr, "look at %s://%s/ui\n", scheme, listener.Addr())
	}
}

// drainThenStop gives two contexts: the first interrupt or SIGTERM ends drain,
// the second one ends stop. Before it is called, while the model loads, the first
// one ends the process.
func drainThenStop(ctx context.Context) (drain, stop context.Context, cancel context.CancelFunc) {
	drain, endDrain := context.WithCancel(ctx)
	stop, endStop := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for _, end := range []context.CancelFunc{endDrain, endStop} {
			select {
			case <-signals:
				end()
			case <-stop.Done():
				return
			}
		}
	}()
	return drain, stop, func() { signal.Stop(signals); endDrain(); endStop() }
}
