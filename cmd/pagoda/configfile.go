package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// configFlag names the YAML file.
const configFlag = "config"

// maxConfigFileBytes bounds the file; a long one has two kilobytes.
const maxConfigFileBytes = 1 << 20

// registerConfig adds --config to a command.
func registerConfig(flags *pflag.FlagSet) {
	flags.String(configFlag, "", "YAML file with settings: flag names with _ or - and their values; the command line wins, then PAGODA_* variables")
}

// setFromOutside sets the flags that the command line did not: from the
// environment, and what that leaves from the file of --config.
func setFromOutside(cmd *cobra.Command, lookup func(string) (string, bool)) error {
	if err := setFromEnvironment(cmd, lookup); err != nil {
		return err
	}
	for _, text := range misspelt(cmd, os.Environ()) {
		fmt.Fprintln(os.Stderr, "warning:", text)
	}
	flag := cmd.Flags().Lookup(configFlag)
	if flag == nil || flag.Value.String() == "" {
		return nil
	}
	if err := setFromFile(cmd, flag.Value.String()); err != nil {
		return usageError{fmt.Errorf("--%s: %w", configFlag, err)}
	}
	return nil
}

// setFromFile sets the flags that are not set yet. A key is a flag's name, with
// _ or -. One file may serve several commands: keys of pagoda serve that this
// command has no use for are passed over.
func setFromFile(cmd *cobra.Command, name string) error {
	root, err := readConfigFile(name)
	if err != nil {
		return err
	}
	given := map[string]bool{}
	cmd.Flags().Visit(func(f *pflag.Flag) { given[strings.TrimPrefix(f.Name, "no-")] = true })
	serve, seen := serveCommand().Flags(), map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		at := fmt.Sprintf("%s:%d: %s", name, key.Line, key.Value)
		flag, ok := flagOfKey(cmd.Flags(), key.Value)
		if !ok {
			if flag, ok = flagOfKey(serve, key.Value); !ok {
				return fmt.Errorf("%s: no such setting%s", at, didYouMean(key.Value, keysOf(cmd.Flags(), serve)))
			}
			flag = &pflag.Flag{Name: flag.Name, Value: flag.Value} // checked, but not used here
		}
		base := strings.TrimPrefix(flag.Name, "no-")
		if line, twice := seen[base]; twice {
			return fmt.Errorf("%s: set twice, first in line %d", at, line)
		}
		seen[base] = key.Line
		if flag.Name == configFlag {
			return fmt.Errorf("%s: a file does not name another", at)
		}
		if given[base] {
			continue
		}
		if err := setFromNode(cmd, flag, value); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

// readConfigFile reads the one mapping that the file is; an empty file is an
// empty mapping.
func readConfigFile(name string) (*yaml.Node, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigFileBytes {
		return nil, fmt.Errorf("%s: more than %s, which is no configuration", name, formatBytes(maxConfigFileBytes))
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(data)))
	var document, more yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return &yaml.Node{}, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: want one YAML document", name)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return &yaml.Node{}, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: want lines such as max_num_seqs: 64", name, root.Line)
	}
	return root, nil
}

// flagOfKey finds the flag of a key.
func flagOfKey(flags *pflag.FlagSet, key string) (*pflag.Flag, bool) {
	flag := flags.Lookup(strings.ReplaceAll(key, "_", "-"))
	return flag, flag != nil
}

// keysOf lists the keys that the flag sets know.
func keysOf(sets ...*pflag.FlagSet) []string {
	var keys []string
	for _, set := range sets {
		set.VisitAll(func(f *pflag.Flag) { keys = append(keys, strings.ReplaceAll(f.Name, "-", "_")) })
	}
	return keys
}

// setFromNode gives a flag a value of the file: a scalar, a list where the flag
// takes one, or a mapping where it takes JSON. A flag of another command is only
// tried.
func setFromNode(cmd *cobra.Command, flag *pflag.Flag, node *yaml.Node) error {
	set := flag.Value.Set
	if own := cmd.Flags().Lookup(flag.Name); own != nil {
		set = func(text string) error { return cmd.Flags().Set(flag.Name, text) }
	}
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return errors.New("has no value; leave the line out for the default")
		}
		return set(node.Value)
	case yaml.SequenceNode:
		if _, list := flag.Value.(pflag.SliceValue); !list {
			return errors.New("takes one value, not a list")
		}
		for _, element := range node.Content {
			if element.Kind != yaml.ScalarNode {
				return errors.New("takes a list of plain values")
			}
			if err := set(element.Value); err != nil {
				return err
			}
		}
		return nil
	case yaml.MappingNode:
		var value any
		if err := node.Decode(&value); err != nil {
			return err
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		return set(string(text))
	}
	return errors.New("aliases are not supported: write the value out")
}
