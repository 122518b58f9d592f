// Command pipelines asks Kubeflow Pipelines' own code what its server would say to a compiled pipeline.
//
// Usage: pipelines SPEC
//
// The spec goes the way of an upload (the API server's template package) and then that of a new run (input checks and
// the Argo compiler, with the platform document). Where both accept it, the Argo Workflow is printed as JSON and the
// exit code is 0; where one refuses it, "refused at upload: …" or "refused at run creation: …" and 1. Exit code 2: the
// file cannot be read.
//
// The referee builds this file inside a module that requires one version of github.com/kubeflow/pipelines.
package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/kubeflow/pipelines/backend/src/apiserver/config/proxy"
	"github.com/kubeflow/pipelines/backend/src/apiserver/model"
	"github.com/kubeflow/pipelines/backend/src/apiserver/template"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: pipelines SPEC")
		os.Exit(2)
	}
	content, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "pipelines:", err)
		os.Exit(2)
	}
	// The compiler panics where nobody said which proxy the pods use; the server says it when it starts.
	proxy.InitializeConfigWithEmptyForTests()
	uploaded, err := upload(content)
	if err != nil {
		refuse("upload", err)
	}
	workflow, err := uploaded.RunWorkflow(&model.Run{}, template.RunWorkflowOptions{})
	if err != nil {
		refuse("run creation", err)
	}
	fmt.Println(workflow.ToStringForStore())
}

// upload calls template.New with the server's defaults. What follows the content differs from version to version (a
// switch for the cache, later a structure), and its zero value is the default in each.
func upload(content []byte) (template.Template, error) {
	function := reflect.ValueOf(template.New)
	arguments := []reflect.Value{reflect.ValueOf(content)}
	for number := 1; number < function.Type().NumIn(); number++ {
		arguments = append(arguments, reflect.Zero(function.Type().In(number)))
	}
	results := function.Call(arguments)
	if err, ok := results[1].Interface().(error); ok && err != nil {
		return nil, err
	}
	return results[0].Interface().(template.Template), nil
}

func refuse(when string, err error) {
	fmt.Printf("refused at %s: %s\n", when, strings.Join(strings.Fields(err.Error()), " "))
	os.Exit(1)
}
