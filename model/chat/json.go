package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
)

// maxDepth bounds the nesting of JSON in a request and of a value in tojson.
const maxDepth = 64

// maxIntegerDigits is the longest integer that Python's json.loads takes.
const maxIntegerDigits = 4300

// object is a JSON object with its keys in the order of the text. Of a repeated
// key the last value stands, in the place of the first, as in a Python dict.
type object struct {
	members []member
}

type member struct {
	key   string
	value any
}

func (o *object) get(key string) (any, bool) {
	for _, m := range o.members {
		if m.key == key {
			return m.value, true
		}
	}
	return nil, false
}

// set replaces the value of key or appends it.
func (o *object) set(key string, value any) {
	for i := range o.members {
		if o.members[i].key == key {
			o.members[i].value = value
			return
		}
	}
	o.members = append(o.members, member{key, value})
}

// parseJSON decodes one JSON text into nil, bool, int64, *big.Int, float64,
// string, []any and *object, the way Python's json.loads tells int from float.
func parseJSON(data []byte) (any, error) {
	var checked json.RawMessage // Token alone lets some malformed texts pass
	if err := json.Unmarshal(data, &checked); err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	return parseValue(decoder, 0)
}

func parseValue(decoder *json.Decoder, depth int) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	switch token := token.(type) {
	case json.Delim:
		if depth == maxDepth {
			return nil, fmt.Errorf("nested deeper than %d", maxDepth)
		}
		if token == '[' {
			return parseArray(decoder, depth+1)
		}
		return parseObject(decoder, depth+1)
	case json.Number:
		return parseNumber(token.String())
	default:
		return token, nil
	}
}

func parseArray(decoder *json.Decoder, depth int) (any, error) {
	list := []any{}
	for decoder.More() {
		value, err := parseValue(decoder, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := decoder.Token()
	return list, err
}

func parseObject(decoder *json.Decoder, depth int) (any, error) {
	o := &object{}
	at := map[string]int{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		value, err := parseValue(decoder, depth)
		if err != nil {
			return nil, err
		}
		name := key.(string)
		if i, repeated := at[name]; repeated {
			o.members[i].value = value
			continue
		}
		at[name] = len(o.members)
		o.members = append(o.members, member{name, value})
	}
	_, err := decoder.Token()
	return o, err
}

func parseNumber(text string) (any, error) {
	for _, c := range text {
		if c == '.' || c == 'e' || c == 'E' {
			f, err := strconv.ParseFloat(text, 64)
			if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range: ±Inf or 0, as in Python
				return nil, err
			}
			return f, nil
		}
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, nil
	}
	if len(text) > maxIntegerDigits {
		return nil, fmt.Errorf("integer of %d digits, more than %d", len(text), maxIntegerDigits)
	}
	i, _ := new(big.Int).SetString(text, 10)
	return i, nil
}
