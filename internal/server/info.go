package server

import "net/http"

func (s *Server) handleLoad(w http.ResponseWriter, _ *http.Request) {
	s.writeJSON(w, http.StatusOK, map[string]int64{"server_load": s.load.Load()})
}

// handleServerInfo shows the effective configuration and the limits of requests.
func (s *Server) handleServerInfo(w http.ResponseWriter, _ *http.Request) {
	config := map[string]any{"max_model_len": s.info.MaxModelLen, "max_logprobs": s.info.MaxLogprobs, "served_model_name": s.names[0]}
	for _, setting := range s.info.Settings {
		if setting.Name != "model" { // a path, which no key protects here
			config[setting.Name] = setting.Value
		}
	}
	defaults := map[string]string{}
	for _, row := range s.Defaults() {
		defaults[row.Name] = row.Value
	}
	bounds := map[string]int64{"top_logprobs": int64(s.info.MaxLogprobs)}
	for _, c := range caps {
		bounds[c.name] = c.most
	}
	s.writeJSON(w, http.StatusOK, map[string]any{
		"version": s.version, "vllm_config": config, "request_defaults": defaults, "request_limits": bounds,
	})
}

// handleTokenizerInfo shows what a client needs to know to build prompts itself.
func (s *Server) handleTokenizerInfo(w http.ResponseWriter, _ *http.Request) {
	if s.tokenizer == nil {
		s.writeError(w, &apiError{status: http.StatusNotFound, kind: typeInvalidRequest, message: "this model has no tokenizer"})
		return
	}
	s.writeJSON(w, http.StatusOK, map[string]any{
		"tokenizer_class": "PreTrainedTokenizerFast", "vocab_size": s.info.VocabSize, "model_max_length": s.info.MaxModelLen,
		"has_chat_template": s.template != nil,
	})
}

func (s *Server) handleVersion(w http.ResponseWriter, _ *http.Request) {
	s.writeJSON(w, http.StatusOK, map[string]string{"version": s.version})
}

// handleIsSleeping is for routers that ask before they send: it never sleeps.
func (s *Server) handleIsSleeping(w http.ResponseWriter, _ *http.Request) {
	s.writeJSON(w, http.StatusOK, map[string]bool{"is_sleeping": false})
}
