package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// manifests reads every document of deploy/kubernetes, by kind.
func manifests(t *testing.T) map[string]map[string]any {
	files, err := filepath.Glob(filepath.Join("..", "..", "deploy", "kubernetes", "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	found := map[string]map[string]any{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
			var document map[string]any
			if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
				break
			} else {
				require.NoError(t, err, file)
			}
			require.NotEmpty(t, document["apiVersion"], file)
			found[document["kind"].(string)] = document
		}
	}
	return found
}

// at walks maps and lists.
func at(t *testing.T, value any, path ...string) any {
	for _, key := range path {
		if list, ok := value.([]any); ok {
			i, err := strconv.Atoi(key)
			require.NoError(t, err)
			value = list[i]
			continue
		}
		m, ok := value.(map[string]any)
		require.True(t, ok, "%v of %v", key, path)
		value = m[key]
		require.NotNil(t, value, "%v of %v", key, path)
	}
	return value
}

// drainDefault is how long serve drains.
func drainDefault(t *testing.T) time.Duration {
	d, err := serveCommand().Flags().GetDuration("drain-timeout")
	require.NoError(t, err)
	return d
}

// TestKubernetes: the manifests fit the server that they start.
func TestKubernetes(t *testing.T) {
	m := manifests(t)
	pod := at(t, m["Deployment"], "spec", "template", "spec")
	container := at(t, pod, "containers", "0")
	for probe, path := range map[string]string{"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"} {
		require.Equal(t, path, at(t, container, probe, "httpGet", "path"), probe)
		require.Equal(t, at(t, container, "ports", "0", "name"), at(t, container, probe, "httpGet", "port"))
	}
	sleep, err := strconv.Atoi(at(t, container, "lifecycle", "preStop", "exec", "command", "1").(string))
	require.NoError(t, err)
	grace := time.Duration(at(t, pod, "terminationGracePeriodSeconds").(int)) * time.Second
	require.Greater(t, grace, drainDefault(t)+time.Duration(sleep)*time.Second)
	require.Equal(t, true, at(t, pod, "securityContext", "runAsNonRoot"))
	require.Equal(t, false, at(t, pod, "enableServiceLinks"), "else PAGODA_PORT is an address")
	require.Equal(t, at(t, m["PersistentVolumeClaim"], "metadata", "name"), at(t, pod, "volumes", "1", "persistentVolumeClaim", "claimName"))
	labels := at(t, m["Deployment"], "spec", "template", "metadata", "labels")
	require.Equal(t, labels, at(t, m["Deployment"], "spec", "selector", "matchLabels"))
	require.Equal(t, labels, at(t, m["Service"], "spec", "selector"))

	cmd := serveCommand()
	require.NoError(t, cmd.ParseFlags([]string{"--config", configFile(t, at(t, m["ConfigMap"], "data", "config.yaml").(string))}))
	environment, ok := at(t, m["Secret"], "stringData").(map[string]any)
	require.True(t, ok)
	require.NoError(t, setFromOutside(cmd, func(name string) (string, bool) { v, ok := environment[name].(string); return v, ok }))
	require.Equal(t, "[change-me]", cmd.Flags().Lookup("api-key").Value.String())
}

// TestKubernetesServiceLinks: the variable that a Service named pagoda makes is
// recognized.
func TestKubernetesServiceLinks(t *testing.T) {
	cmd := serveCommand()
	err := setFromOutside(cmd, func(name string) (string, bool) { return "tcp://10.0.0.1:80", name == "PAGODA_PORT" })
	require.ErrorContains(t, err, "enableServiceLinks: false")
	require.Equal(t, exitUsage, exitCode(err))
}

// TestUnit: systemd waits for the drain, and does not restart what is a mistake.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "pagoda.service"))
	require.NoError(t, err)
	set := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			set[name] = value
		}
	}
	stop, err := strconv.Atoi(set["TimeoutStopSec"])
	require.NoError(t, err)
	require.Greater(t, time.Duration(stop)*time.Second, drainDefault(t))
	for _, code := range []int{exitUsage, exitModel, exitMemory} {
		require.Contains(t, strings.Fields(set["RestartPreventExitStatus"]), strconv.Itoa(code))
	}
	args := strings.Fields(set["ExecStart"])
	require.Equal(t, "serve", args[1])
	require.NoError(t, serveCommand().ParseFlags(args[2:]))
}

// TestServingPage: every flag that the page and the files of deploy name exists.
func TestServingPage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "serving.md"))
	require.NoError(t, err)
	known := map[string]bool{"--help": true}
	for _, cmd := range []string{"serve", "plan", "doctor", "trace"} {
		c, _, err := rootCommand().Find([]string{cmd})
		require.NoError(t, err)
		for _, name := range flagNames(c.Flags()) {
			known[name] = true
		}
	}
	flags := regexp.MustCompile("--[a-z][a-z-]+").FindAllString(string(text), -1)
	require.Greater(t, len(flags), 50)
	for _, flag := range flags {
		require.True(t, known[flag], flag)
	}
}
