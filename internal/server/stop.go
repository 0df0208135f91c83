package server

// stopMatcher finds stop strings in text that arrives in pieces. The match that
// ends first wins, of those that end at the same byte the longest: so the result
// does not depend on how the text was split. Between pieces it holds back
// exactly the longest suffix that is a proper prefix of a stop string, which is
// the state of the automata (Knuth, Morris, Pratt, 1977; one for each string).
// Stop strings and text are valid UTF-8, so the cut never splits a character.
type stopMatcher struct {
	stops []string
	fail  [][]int // fail[i][n]: longest proper border of stops[i][:n]
	state []int   // bytes of stops[i] matched by the end of the text
	held  []byte
}

// newStopMatcher returns a matcher of stops, none of which is empty.
func newStopMatcher(stops []string) *stopMatcher {
	m := &stopMatcher{stops: stops, fail: make([][]int, len(stops)), state: make([]int, len(stops))}
	for i, stop := range stops {
		fail := make([]int, len(stop)+1)
		for n, k := 1, 0; n < len(stop); n++ {
			for k > 0 && stop[n] != stop[k] {
				k = fail[k]
			}
			if stop[n] == stop[k] {
				k++
			}
			fail[n+1] = k
		}
		m.fail[i] = fail
	}
	return m
}

// feed takes the next piece of text and returns what may be shown, and the index
// of the stop string found, −1 if none. After a match the matcher is spent.
// Matches that end in an unarmed piece do not count (min_tokens).
func (m *stopMatcher) feed(text string, armed bool) (show string, match int) {
	if len(m.stops) == 0 {
		return text, -1
	}
	m.held = append(m.held, text...)
	from := len(m.held) - len(text)
	for at := from; at < len(m.held); at++ {
		if match := m.step(m.held[at], armed); match >= 0 {
			return string(m.held[:at+1-len(m.stops[match])]), match
		}
	}
	hold := 0
	for _, n := range m.state {
		hold = max(hold, n)
	}
	cut := len(m.held) - hold
	show = string(m.held[:cut])
	m.held = append(m.held[:0], m.held[cut:]...)
	return show, -1
}

// step moves every automaton by one byte and returns the longest stop string
// that ends there, or −1.
func (m *stopMatcher) step(c byte, armed bool) int {
	match := -1
	for i, stop := range m.stops {
		n := m.state[i]
		for n > 0 && stop[n] != c {
			n = m.fail[i][n]
		}
		if stop[n] == c {
			n++
		}
		if n == len(stop) {
			if armed && (match < 0 || n > len(m.stops[match])) {
				match = i
			}
			n = m.fail[i][n]
		}
		m.state[i] = n
	}
	return match
}

// flush returns what is held back; the text ends there.
func (m *stopMatcher) flush() string {
	held := string(m.held)
	m.held = m.held[:0]
	return held
}
