package kvcache

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// hasher computes the hash chain. Its buffer makes hashing free of allocations.
type hasher struct {
	root []byte // key and model, what every seed begins with
	buf  []byte // parent hash, then the tokens as little-endian int32
}

func newHasher(cfg Config) hasher {
	root := append([]byte(nil), cfg.Key[:]...)
	root = binary.LittleEndian.AppendUint64(root, uint64(len(cfg.Model)))
	root = append(root, cfg.Model...)
	return hasher{root: root, buf: make([]byte, sha256.Size+4*cfg.BlockSize)}
}

// seed is the parent of a sequence's first block. The model's length
// is hashed with it, and the salt comes last, so that no two pairs spell the same
// bytes.
func (h *hasher) seed(salt string) Hash {
	return sha256.Sum256(append(h.root[:len(h.root):len(h.root)], salt...))
}

// block is the hash of a full block.
func (h *hasher) block(parent Hash, tokens []int32) Hash {
	copy(h.buf, parent[:])
	for i, token := range tokens {
		binary.LittleEndian.PutUint32(h.buf[sha256.Size+4*i:], uint32(token))
	}
	return sha256.Sum256(h.buf)
}

// holds says whether the published block has this content. The hash decides in
// practice; comparing makes a collision or a bug a miss and not another
// request's text.
func (m *Manager) holds(id BlockID, tokens []int32) bool {
	size := m.cfg.BlockSize
	return slices.Equal(m.tokens[int(id)*size:(int(id)+1)*size], tokens)
}
