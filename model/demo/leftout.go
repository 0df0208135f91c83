//go:build nodemo

package demo

import "io/fs"

var files fs.ReadFileFS
