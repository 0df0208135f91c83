package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// store keeps runs in a file, a JSON line each, so that an interrupted experiment
// goes on where it was. A nil store keeps nothing.
type store struct {
	context string
	file    *os.File
	runs    map[string]storeLine
}

// storeLine is a line of the file. Context is what must be the same for a run to
// count: model, device, machine, settings that no arm names.
type storeLine struct {
	Context string             `json:"context"`
	Arm     string             `json:"arm"`
	Repeat  int                `json:"repeat"`
	Values  map[string]float64 `json:"values"`
	Model   learned            `json:"model"` // as it was fitted after the run
}

// openStore opens the runs of path: those of the same context when resume is set,
// none otherwise.
func openStore(path, context string, resume bool) (*store, error) {
	s := &store{context: context, runs: map[string]storeLine{}}
	var whole int64
	if resume {
		var err error
		if whole, err = s.read(path); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	// What follows a half written line would be lost with it.
	if err := file.Truncate(whole); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s.file = file
	return s, nil
}

// read takes the runs of a file, whose last line may be half written, and says how
// many bytes its whole lines have.
func (s *store) read(path string) (whole int64, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }() // only read
	lines := bufio.NewReader(file)
	others := 0
	for {
		text, err := lines.ReadBytes('\n')
		var line storeLine
		if err == nil {
			whole += int64(len(text))
		}
		if err == nil && json.Unmarshal(text, &line) == nil {
			if line.Context == s.context {
				s.runs[storeKey(line.Arm, line.Repeat)] = line
			} else {
				others++
			}
		}
		switch {
		case errors.Is(err, io.EOF) && others > 0 && len(s.runs) == 0:
			return 0, fmt.Errorf("%s: its %d runs are of another model, machine or setting: leave --resume out, or choose another --output-dir", path, others)
		case errors.Is(err, io.EOF):
			return whole, nil
		case err != nil:
			return 0, err
		}
	}
}

func storeKey(arm string, repeat int) string { return fmt.Sprintf("%s#%d", arm, repeat) }

// recall finds a run.
func (s *store) recall(arm string, repeat int) (values map[string]float64, model learned, ok bool) {
	if s == nil {
		return nil, learned{}, false
	}
	line, ok := s.runs[storeKey(arm, repeat)]
	return line.Values, line.Model, ok
}

// keep adds a run.
func (s *store) keep(arm string, repeat int, values map[string]float64, model learned) error {
	if s == nil {
		return nil
	}
	line := storeLine{s.context, arm, repeat, values, model}
	s.runs[storeKey(arm, repeat)] = line
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if _, err = s.file.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("the runs measured so far cannot be kept, make room or choose another --output-dir: %w", err)
	}
	return nil
}

// close ends the file. One without a run would only be in the way.
func (s *store) close() error {
	if s == nil {
		return nil
	}
	info, err := s.file.Stat()
	if err == nil && info.Size() == 0 {
		err = os.Remove(s.file.Name())
	}
	return errors.Join(err, s.file.Close())
}
