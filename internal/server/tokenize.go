package server

import (
	"encoding/json"
	"net/http"
)

// tokenizeFields is the table of /tokenize: a prompt, or a chat.
var tokenizeFields = map[string]field{
	"model":                  samplingFields["model"],
	"prompt":                 tokenizePrompt,
	"messages":               decodeMessages,
	"tools":                  decodeTools,
	"add_generation_prompt":  chatFields["add_generation_prompt"],
	"add_special_tokens":     completionFields["add_special_tokens"],
	"return_token_strs":      boolean(func(r *request) *bool { return &r.tokensAsIDs }),
	"continue_final_message": chatFields["continue_final_message"],
	"chat_template":          chatFields["chat_template"],
	"chat_template_kwargs":   chatFields["chat_template_kwargs"],
	"mm_processor_kwargs":    refusedFields["mm_processor_kwargs"],
}

// detokenizeFields is the table of /detokenize.
var detokenizeFields = map[string]field{
	"model":               samplingFields["model"],
	"tokens":              detokenizeTokens,
	"skip_special_tokens": samplingFields["skip_special_tokens"],
}

func tokenizePrompt(r *request, name string, value json.RawMessage) *apiError {
	var p prompt
	if json.Unmarshal(value, &p.text) != nil {
		return badField(name, "must be a string")
	}
	r.prompts = []prompt{p}
	return nil
}

func detokenizeTokens(r *request, name string, value json.RawMessage) *apiError {
	ids, err := parseTokenIDs(name, value, maxBodyBytes)
	r.prompts = []prompt{{ids: ids}}
	return err
}

func (s *Server) handleTokenize(w http.ResponseWriter, req *http.Request) {
	r := s.defaults()
	defer r.encoded()
	r.counted = true
	ids, err := s.tokenize(w, req, &r)
	if err != nil {
		s.writeError(w, err)
		return
	}
	body := map[string]any{"count": len(ids), "max_model_len": s.info.MaxModelLen, "tokens": ids}
	if r.tokensAsIDs {
		spellings := make([]string, len(ids))
		for i, id := range ids {
			spellings[i] = s.tokenizer.TokenString(id)
		}
		body["token_strs"] = spellings
	}
	s.writeJSON(w, http.StatusOK, body)
}

func (s *Server) tokenize(w http.ResponseWriter, req *http.Request, r *request) ([]int32, *apiError) {
	if err := s.decodeTokenizer(w, req, tokenizeFields, r); err != nil {
		return nil, err
	}
	if err := r.checkEnd(); err != nil {
		return nil, err
	}
	switch {
	case r.prompts != nil && r.messages != nil:
		return nil, badField("prompt", "and messages are both given")
	case r.messages != nil:
		return s.encodeChat(req.Context(), r, "messages")
	case r.prompts == nil:
		return nil, badField("prompt", "or messages must be given")
	case r.prompts[0].text == "":
		return []int32{}, nil
	}
	return s.encodePrompt(req.Context(), r, r.prompts[0])
}

func (s *Server) handleDetokenize(w http.ResponseWriter, req *http.Request) {
	r := s.defaults()
	defer r.encoded()
	r.skipSpecial = false
	err := s.decodeTokenizer(w, req, detokenizeFields, &r)
	if err == nil && r.prompts == nil {
		err = badField("tokens", "is missing")
	}
	if err == nil {
		err = r.checkVocabulary("tokens", s.info.VocabSize, s.info.SampleVocab)
	}
	if err != nil {
		s.writeError(w, err)
		return
	}
	s.writeJSON(w, http.StatusOK, map[string]string{"prompt": s.tokenizer.Decode(r.prompts[0].ids, r.skipSpecial)})
}

func (s *Server) decodeTokenizer(w http.ResponseWriter, req *http.Request, table map[string]field, r *request) *apiError {
	if s.tokenizer == nil {
		return &apiError{status: http.StatusNotFound, kind: typeInvalidRequest, message: "this model has no tokenizer"}
	}
	body, err := s.readBody(w, req, r)
	if err != nil {
		return err
	}
	if err := s.decodeFields(body, table, r); err != nil {
		return err
	}
	return s.checkModel(&r.model)
}
