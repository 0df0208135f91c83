package server

import (
	"net/http"
	"slices"
)

// modelInfo is an entry of /v1/models.
type modelInfo struct {
	ID          string  `json:"id"`
	Object      string  `json:"object"`
	Created     int64   `json:"created"`
	OwnedBy     string  `json:"owned_by"`
	Root        string  `json:"root"`
	Parent      *string `json:"parent"`
	MaxModelLen int     `json:"max_model_len"`
}

func (s *Server) modelInfo(name string) modelInfo {
	return modelInfo{ID: name, Object: "model", Created: s.created, OwnedBy: "pagoda", Root: s.names[0], MaxModelLen: s.info.MaxModelLen}
}

func (s *Server) handleModels(w http.ResponseWriter, _ *http.Request) {
	list := make([]modelInfo, len(s.names))
	for i, name := range s.names {
		list[i] = s.modelInfo(name)
	}
	s.writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

func (s *Server) handleModel(w http.ResponseWriter, req *http.Request) {
	name := req.PathValue("id")
	if name == "" { // a slash too many, not the model that is meant without a name
		s.writeError(w, noPath)
		return
	}
	if err := s.checkModel(&name); err != nil {
		s.writeError(w, err)
		return
	}
	s.writeJSON(w, http.StatusOK, s.modelInfo(name))
}

// checkModel refuses names that are not served; none means the first.
func (s *Server) checkModel(name *string) *apiError {
	if *name == "" {
		*name = s.names[0]
	}
	if !slices.Contains(s.names, *name) {
		return &apiError{status: http.StatusNotFound, kind: typeInvalidRequest, param: "model", code: "model_not_found",
			message: "the model does not exist; GET /v1/models lists those that do"}
	}
	return nil
}

// handleResetPrefixCache answers once nothing that was cached before is hit again.
func (s *Server) handleResetPrefixCache(w http.ResponseWriter, req *http.Request) {
	if err := s.engine.ResetPrefixCache(req.Context()); err != nil {
		s.writeError(w, s.mapError(err, ""))
		return
	}
	w.WriteHeader(http.StatusOK)
}
