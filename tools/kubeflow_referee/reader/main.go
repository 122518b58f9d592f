// Command reader prints what Go's YAML reader makes of a compiled pipeline, as Kubeflow Pipelines' server calls it.
//
// Usage: reader SPEC
//
// Each document is one line of JSON. Exit code 1: the reader refuses the file, or JSON cannot hold what it read. Exit
// code 2: the file cannot be opened.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"gopkg.in/yaml.v3"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: reader SPEC")
		os.Exit(2)
	}
	file, err := os.Open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "reader:", err)
		os.Exit(2)
	}
	decoder := yaml.NewDecoder(file)
	for {
		var document map[string]interface{}
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return
		}
		var line []byte
		if err == nil {
			line, err = json.Marshal(document)
		}
		if err != nil {
			fmt.Println("unreadable:", err)
			os.Exit(1)
		}
		fmt.Println(string(line))
	}
}
