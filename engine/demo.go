package engine

import (
	"github.com/pagoda-engine/pagoda/model"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// openWeights opens the weights of a directory or of the demo model.
func openWeights(name string) (weights model.Source, closeWeights func(), err error) {
	if name == demo.Name {
		data, err := readDemo(demo.WeightsFile)
		if err != nil {
			return nil, nil, err
		}
		weights, err = model.OpenQuantized(demo.WeightsFile, data)
		return weights, func() {}, err
	}
	checkpoint, err := model.OpenCheckpoint(name)
	if err != nil {
		return nil, nil, err
	}
	return checkpoint, func() { _ = checkpoint.Close() }, nil // read-only: nothing can be lost
}

// readDemo reads a file of the demo model.
func readDemo(file string) ([]byte, error) {
	files, err := demo.Files()
	if err != nil {
		return nil, err
	}
	return files.ReadFile(file)
}

// readDemoConfigs is readConfigs for the demo model.
func readDemoConfigs() (*model.Config, *model.GenerationConfig, error) {
	data, err := readDemo(model.ConfigFile)
	if err != nil {
		return nil, nil, err
	}
	config, err := model.ParseConfig(model.ConfigFile, data)
	if err != nil {
		return nil, nil, err
	}
	if data, err = readDemo(model.GenerationConfigFile); err != nil {
		return nil, nil, err
	}
	generation, err := model.ParseGenerationConfig(model.GenerationConfigFile, data, config.VocabSize)
	return config, generation, err
}
