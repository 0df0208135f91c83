package server

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/pagoda-engine/pagoda/engine"
)

// The fields that are lists of strings or ids.

func stopStrings(r *request, name string, value json.RawMessage) *apiError {
	var one string
	if json.Unmarshal(value, &one) == nil {
		r.stops = []string{one}
	} else if json.Unmarshal(value, &r.stops) != nil {
		return badField(name, "must be a string or a list of strings")
	}
	if len(r.stops) > maxStops {
		return badField(name, "has %d strings, at most %d are allowed", len(r.stops), maxStops)
	}
	for i, stop := range r.stops {
		if stop == "" || len(stop) > maxStopBytes {
			return badField(name, "string %d has %d bytes, must have 1 to %d", i, len(stop), maxStopBytes)
		}
	}
	return nil
}

func stopTokenIDs(r *request, name string, value json.RawMessage) (err *apiError) {
	r.stopIDs, err = parseTokenIDs(name, value, maxStopIDs)
	return err
}

func logitBias(r *request, name string, value json.RawMessage) *apiError {
	var raw map[string]json.RawMessage
	if json.Unmarshal(value, &raw) != nil {
		return badField(name, "must be an object from token ids to numbers")
	}
	if len(raw) > maxLogitBias {
		return badField(name, "has %d entries, at most %d are allowed", len(raw), maxLogitBias)
	}
	bias := make([]engine.TokenBias, 0, len(raw))
	for key, item := range raw {
		id, err := strconv.ParseUint(key, 10, 31)
		if err != nil || strconv.FormatUint(id, 10) != key { // "07" and "7" would be the same id twice
			return badField(name, "has the key %q, keys must be token ids", key)
		}
		v, bad := parseNumber(name, item, limits[name])
		if bad != nil {
			return bad
		}
		bias = append(bias, engine.TokenBias{ID: int32(id), Bias: float32(v)})
	}
	slices.SortFunc(bias, func(a, b engine.TokenBias) int { return int(a.ID - b.ID) })
	r.sampling.LogitBias = bias
	return nil
}
