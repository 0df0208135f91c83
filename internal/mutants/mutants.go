package main

// mutants are the seeded bugs: those that other engines had, and those that this
// code invites.
var mutants = []mutant{
	// kvcache: references and the free queue.
	{"skipped decref", "kvcache/manager.go", []edit{
		{"for i := len(t.ids) - 1; i >= 0; i-- {", "for i := len(t.ids) - 1; i > 0; i-- {"}}},
	{"pin after the capacity check", "kvcache/manager.go", []edit{
		{"if queued+need+max(reserve, 0) > m.free {", "if need+max(reserve, 0) > m.free {"}}},
	{"reserve ignored", "kvcache/manager.go", []edit{
		{"if queued+need+max(reserve, 0) > m.free {", "if queued+need > m.free {"}}},
	{"list freed twice", "kvcache/manager.go", []edit{
		{"		m.unpin(t.ids[i])\n	}\n	t.ids, t.hashed = t.ids[:0], 0\n", "		m.unpin(t.ids[i])\n	}\n"}}},
	{"duplicate in a freed list", "kvcache/queue.go", []edit{
		{"	if b.refs <= 0 {\n", "	if b.refs < 0 {\n"}}},
	{"tails freed last", "kvcache/manager.go", []edit{
		{"for i := len(t.ids) - 1; i >= 0; i-- {\n		m.unpin(t.ids[i])", "for i := range t.ids {\n		m.unpin(t.ids[i])"}}},
	{"cached blocks reused first", "kvcache/queue.go", []edit{
		{"	case b.published:\n		m.insert(id, m.blocks[0].prev, 0)", "	case b.published:\n		m.insert(id, 0, m.blocks[0].next)"}}},
	{"off-by-one slot", "kvcache/manager.go", []edit{
		{"return (tokens + m.cfg.BlockSize - 1) / m.cfg.BlockSize", "return (tokens + m.cfg.BlockSize - 2) / m.cfg.BlockSize"}}},
	{"block in flight freed", "kvcache/queue.go", []edit{
		{"	case b.copies > 0:\n		m.flies(id, 1)\n", "	case b.copies > 9:\n		m.flies(id, 1)\n"}}},
	{"pin forgets the block in flight", "kvcache/queue.go", []edit{
		{"		m.flies(id, -1)\n		m.used++\n", "		m.used++\n"}}},

	// kvcache: the prefix index.
	{"hash without parent", "kvcache/prefix.go", []edit{
		{"	copy(h.buf, parent[:])\n", "	_ = parent\n"}}},
	{"hash without salt", "kvcache/prefix.go", []edit{
		{"append(h.root[:len(h.root):len(h.root)], salt...)", "append(h.root[:len(h.root):len(h.root)], salt[:0]...)"}}},
	{"tokens not compared", "kvcache/prefix.go", []edit{
		{"if id == 0 || !m.holds(id, tokens[end-size:end]) {", "if id == 0 {"}}},
	{"hit covers the last token", "kvcache/prefix.go", []edit{
		{"for end := size; end < len(tokens); end += size {", "for end := size; end <= len(tokens); end += size {"}}},
	{"stale index after eviction", "kvcache/queue.go", []edit{
		{"	m.unpublish(id)\n", "	m.blocks[id].published = false\n"}}},
	{"index deletion leaves a gap", "kvcache/index.go", []edit{
		{"if (i-home)&mask >= (i-gap)&mask {", "if (i-home)&mask > mask {"}}},
	{"partial block published", "kvcache/prefix.go", []edit{
		{"	return (t.hashed+1)*m.cfg.BlockSize <= computed\n", "	return t.hashed*m.cfg.BlockSize < computed\n"},
		{"	for ; (t.hashed+1)*size <= computed; t.hashed++ {", "	for ; (t.hashed+1)*size <= min(computed+1, len(tokens)); t.hashed++ {"}}},
	{"duplicate published", "kvcache/prefix.go", []edit{
		{"	if m.index.slots[at] != 0 || m.retired(id) {", "	if m.retired(id) {"}}},
	{"retired block published", "kvcache/prefix.go", []edit{
		{"	if m.index.slots[at] != 0 || m.retired(id) {", "	if m.index.slots[at] != 0 {"}}},
	{"reset forgets running tables", "kvcache/prefix.go", []edit{
		{"	m.era++\n", ""}}},
	{"reset forgets forks", "kvcache/manager.go", []edit{
		{"t.era, t.hashed = parent.era,", "t.era, t.hashed = m.era,"}}},
	{"reset forgets the host", "kvcache/swap.go", []edit{
		{"	h.era = t.era\n", "	h.era = m.era\n"}}},

	// kvcache: forks, swap and limits.
	{"fork without copy", "kvcache/manager.go", []edit{
		{"	if computed%size != 0 {\n", "	if computed%size > size {\n"}}},
	{"fork shares the partial block", "kvcache/manager.go", []edit{
		{"	full := computed / size\n", "	full := m.BlocksFor(computed)\n"},
		{"	if computed%size != 0 {\n", "	if computed%size > size {\n"}}},
	{"swap before claim", "kvcache/swap.go", []edit{
		{"	// First every claim", "	ids := append([]BlockID(nil), t.ids...)\n	m.Release(t)\n	t.ids = ids\n	// First every claim"},
		{"	h.era = t.era\n	m.Release(t)\n", "	h.era = t.era\n	t.ids, t.hashed = t.ids[:0], 0\n"}}},
	{"host copy not counted", "kvcache/swap.go", []edit{
		{"		m.blocks[o.from].copies++\n		m.host.blocks[host].copies++\n	}\n	h.era", "		m.blocks[o.from].copies++\n	}\n	h.era"}}},
	{"host block freed while it is read", "kvcache/swap.go", []edit{
		{"	if b.copies > 0 {\n		p.inFlight++\n	} else if", "	if b.copies > 9 {\n		p.inFlight++\n	} else if"}}},
	{"host block lost after its copy", "kvcache/swap.go", []edit{
		{"		p.inFlight--\n		if int(id) < p.limit {\n", "		p.inFlight--\n		if int(id) < 0 {\n"}}},
	{"wrong start after swap-in", "kvcache/swap.go", []edit{
		{"min(computed, end*m.cfg.BlockSize), h.era", "end*m.cfg.BlockSize, h.era"}}},
	{"swap-in jumps a gap", "kvcache/swap.go", []edit{
		{"	for end < len(h.ids) && h.ids[end] != dropped {\n", "	for end < len(h.ids) {\n		if h.ids[end] == dropped {\n			end++\n			continue\n		}\n"}}},
	{"blocks in the order of their copies", "kvcache/swap.go", []edit{
		{"		t.ids[o.entry] = id\n", "		t.ids[hits+i] = id\n"}}},
	{"free host blocks below the last one taken are lost", "kvcache/swap.go", []edit{
		{"	p.lowest = min(p.lowest, int(id/64))\n", ""}}},
	{"own published blocks not copied out", "kvcache/swap.go", []edit{
		{"return m.blocks[id].published && m.blocks[id].refs > 1", "return m.blocks[id].published"}}},
	{"copies reported to the wrong end", "kvcache/swap.go", []edit{
		{"		if !out {\n", "		if out {\n"}}},
	{"shrinking keeps published blocks", "kvcache/resize.go", []edit{
		{"			m.evict(id) // nobody", "			// nobody"}}},
	{"growing evicts before it uses", "kvcache/resize.go", []edit{
		{"m.insert(id, 0, m.blocks[0].next)", "m.insert(id, m.blocks[0].prev, 0)"}}},

	// scheduler: who runs.
	{"admitted beyond max_num_seqs", "scheduler/admit.go", []edit{
		{"case s.running.len() >= s.cfg.MaxNumSeqs:", "case s.running.len() > s.cfg.MaxNumSeqs:"}}},
	{"budget without the decodes", "scheduler/prefill.go", []edit{
		{"budget := s.cfg.MaxBatchedTokens - out.NumDecodes", "budget := s.cfg.MaxBatchedTokens"}}},
	{"prompts starved beside many decodes", "scheduler/prefill.go", []edit{
		{"max(s.cfg.MaxMixedTokens-decodes, decodes, minChunk)", "max(s.cfg.MaxMixedTokens-decodes, minChunk)"}}},
	{"max_num_mixed_tokens without the decodes", "scheduler/prefill.go", []edit{
		{"max(s.cfg.MaxMixedTokens-decodes, decodes, minChunk)", "max(s.cfg.MaxMixedTokens, decodes, minChunk)"}}},
	{"refused head not tried again", "scheduler/admit.go", []edit{
		{"case s.refused == q.ID && s.refusedChanges == s.kv.Changes():", "case s.refused == q.ID:"}}},
	{"passed over", "scheduler/queue.go", []edit{
		{"	return cmp.Compare(a.ID, b.ID)\n", "	return cmp.Compare(b.ID, a.ID)\n"}}},
	{"published before it is computed", "scheduler/scheduler.go", []edit{
		{"	q.Launched += n\n", "	q.Launched += n\n	s.kv.Publish(&q.Table, q.Tokens, q.CacheSalt, min(q.Launched, len(q.Tokens)))\n"}}},
	{"output reused in flight", "scheduler/scheduler.go", []edit{
		{"	for next == s.slot || s.outputs[next].inFlight {", "	for next == s.slot {"}}},
	{"fork before its parent is there", "scheduler/admit.go", []edit{
		{"p.Status == Running && p.transfer == 0 && p.NumComputed >= q.PromptLen", "p.Status == Running && p.Launched >= q.PromptLen"}}},
	{"forks forgotten with their parent", "scheduler/scheduler.go", []edit{
		{"	q.Status = Finished\n	s.promote(q)\n", "	q.Status = Finished\n"}}},

	// scheduler: preemption.
	{"oldest preempted", "scheduler/preempt.go", []edit{
		{"j > i && left > 0; j-- {", "j >= 0 && left > 0; j-- {"}}},
	{"no hysteresis", "scheduler/admit.go", []edit{
		{"		margin = max(margin, s.running.len()<<(n-1))\n", "		margin += n - n\n"}}},
	{"promise to the protected broken", "scheduler/admit.go", []edit{
		{"	if !s.promisable(q) {\n", "	if !s.promisable(q) && s.step < 0 {\n"}}},
	{"protected preempted like others", "scheduler/preempt.go", []edit{
		{"		if v.protected() != protected {\n", "		if protected && !v.protected() {\n"}}},
	{"admitted beside a preemption", "scheduler/admit.go", []edit{
		{"	case out.shortage():\n", "	case out.shortage() && s.step < 0:\n"}}},
	{"full swap pool overdrawn", "scheduler/preempt.go", []edit{
		{"	case !fits:\n", "	case !fits && s.step < 0:\n"}}},
	{"token of a preempted sequence lost", "scheduler/update.go", []edit{
		{"			q.Tokens = append(q.Tokens, r.Token)\n", "			if q.epoch == e.epoch {\n				q.Tokens = append(q.Tokens, r.Token)\n			}\n"}}},
	{"stale step counts as computed", "scheduler/update.go", []edit{
		{"q.Status == Running && q.epoch == e.epoch", "q.Status == Running"}}},
	{"resumed before its token is there", "scheduler/admit.go", []edit{
		{"	case q.Pending > 0:\n", "	case q.Pending > 9:\n"}}},

	// scheduler: swap and limits.
	{"runs before it is copied in", "scheduler/sequence.go", []edit{
		{"if q.known() >= q.MaxLen || q.transfer != 0 {", "if q.known() >= q.MaxLen {"},
	}},
	{"copied in before it is copied out", "scheduler/admit.go", []edit{
		{"	case q.transfer != 0:\n		return WaitCopyOut\n", ""}}},
	{"abort leaks the host blocks", "scheduler/scheduler.go", []edit{
		{"		if q.Status == Swapped {\n			s.dropHost(q)\n		}\n", ""}}},
	{"arrival of a transfer given up", "scheduler/transfer.go", []edit{
		{"	if q.transfer != id || q.Status == Finished {\n", "	if q.Status == Finished {\n"}}},
	{"owners keep retired blocks", "scheduler/limits.go", []edit{
		{"s.kv.Retired(&q.Table) {", "s.kv.Retired(&q.Table) && s.step < 0 {"}}},
	{"loading sequence swapped out", "scheduler/limits.go", []edit{
		{"	if q.transfer != 0 {\n		d.Means = ByRecompute\n	}\n", ""}}},
	{"retired blocks expected back", "kvcache/manager.go", []edit{
		{"return m.inFlight - m.leaving", "return m.inFlight"}}},

	// scheduler: the model of a step's time.
	{"negative times", "scheduler/steptime.go", []edit{
		{"max(0, m.w[i]+r/m.a[i][i])", "m.w[i] + r/m.a[i][i]"}}},
	{"spikes heard in full", "scheduler/steptime.go", []edit{
		{"	weight := 1 / (t * t)\n", "	weight := 1 / (1 + t - t)\n"}}},
	{"error after learning", "scheduler/steptime.go", []edit{
		{"	m.count++\n	m.solve()\n", "	m.count++\n	m.solve()\n	m.error = math.Abs(m.predict(&l)-t) / t\n"}}},
	{"target_itl ignores the decodes", "scheduler/prefill.go", []edit{
		{"		with := out.Load // of the decodes\n", "		with := Load{}\n"}}},
	{"lower max_num_seqs ignored", "scheduler/limits.go", []edit{
		{"	for s.running.len() > s.cfg.MaxNumSeqs {\n", "	for s.running.len() > s.cfg.MaxNumSeqs && s.step < 0 {\n"}}},
	{"preemption mode stays as it was", "scheduler/limits.go", []edit{
		{"	s.cfg.Limits = l\n", "	l.PreemptionMode = s.cfg.PreemptionMode\n	s.cfg.Limits = l\n"}}},
}
