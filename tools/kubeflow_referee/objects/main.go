// Command objects checks Kubernetes custom resources the way an API server does on creation: it uses the API server's
// own packages on the resource definitions (CRDs) that each project ships.
//
// Usage: objects -crd FILE [-crd FILE ...] MANIFEST ...
//
// The steps and their order are those of a create request with field validation "Strict": duplicate and unknown fields,
// the metadata, defaults, the OpenAPI schema, list sets and maps, the CEL rules. Every finding is one line on standard
// output, "FILE: KIND NAME: FINDING"; an object that is fine is one line that ends in "accepted".
// Exit code 0: all accepted; 1: something was refused; 2: a file cannot be read or no CRD defines an object.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metavalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// Characters that the API server puts behind a generateName.
const generatedLength = 5

type definition struct {
	schema     *structuralschema.Structural
	validator  validation.SchemaValidator
	namespaced bool
}

type files []string

func (f *files) String() string         { return strings.Join(*f, ",") }
func (f *files) Set(value string) error { *f = append(*f, value); return nil }

func main() {
	var crds files
	flag.Var(&crds, "crd", "file with a CustomResourceDefinition; may be given more than once")
	flag.Parse()
	if len(crds) == 0 || flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: objects -crd FILE [-crd FILE ...] MANIFEST ...")
		os.Exit(2)
	}
	refused, err := run(crds, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "objects:", err)
		os.Exit(2)
	}
	if refused {
		os.Exit(1)
	}
}

func run(crds, manifests []string) (bool, error) {
	definitions := map[string]*definition{}
	for _, name := range crds {
		if err := load(name, definitions); err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
	}
	refused := false
	for _, name := range manifests {
		documents, err := read(name)
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		if len(documents) == 0 {
			return false, fmt.Errorf("%s: holds no object", name)
		}
		for _, document := range documents {
			label, findings, err := check(document, definitions)
			if err != nil {
				return false, fmt.Errorf("%s: %w", name, err)
			}
			for _, finding := range findings {
				fmt.Printf("%s: %s: %s\n", name, label, finding)
			}
			if len(findings) == 0 {
				fmt.Printf("%s: %s: accepted\n", name, label)
			}
			refused = refused || len(findings) > 0
		}
	}
	return refused, nil
}

// read returns the YAML or JSON documents of a file that hold something.
func read(name string) ([][]byte, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	var documents [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		var value any
		if err := yaml.Unmarshal(document, &value); err != nil {
			return nil, err
		}
		if value != nil {
			documents = append(documents, document)
		}
	}
}

// load adds every served version of a file's CustomResourceDefinitions, under "apiVersion/kind".
func load(name string, definitions map[string]*definition) error {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	documents, err := read(name)
	if err != nil {
		return err
	}
	for _, document := range documents {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(document, &crd); err != nil {
			return err
		}
		if crd.Kind != "CustomResourceDefinition" {
			continue
		}
		for _, version := range crd.Spec.Versions {
			if version.Schema == nil || version.Schema.OpenAPIV3Schema == nil {
				return fmt.Errorf("version %s has no schema", version.Name)
			}
			var internal apiextensions.JSONSchemaProps
			if err := scheme.Convert(version.Schema.OpenAPIV3Schema, &internal, nil); err != nil {
				return err
			}
			structural, err := structuralschema.NewStructural(&internal)
			if err != nil {
				return err
			}
			validator, _, err := validation.NewSchemaValidator(&internal)
			if err != nil {
				return err
			}
			key := crd.Spec.Group + "/" + version.Name + "/" + crd.Spec.Names.Kind
			definitions[key] = &definition{structural, validator, crd.Spec.Scope == apiextensionsv1.NamespaceScoped}
		}
	}
	return nil
}

// check returns what an API server would refuse an object for; nothing where it would create it.
func check(document []byte, definitions map[string]*definition) (string, []string, error) {
	object := map[string]any{}
	if err := yaml.UnmarshalStrict(document, &object); err != nil {
		return "document", []string{err.Error()}, nil
	}
	resource := unstructured.Unstructured{Object: object}
	name := resource.GetName()
	if name == "" {
		name = resource.GetGenerateName() + "*"
	}
	label := resource.GetKind() + " " + name
	found, ok := definitions[resource.GetAPIVersion()+"/"+resource.GetKind()]
	if !ok {
		return label, nil, fmt.Errorf("no CRD that was given defines %s %s", resource.GetAPIVersion(), resource.GetKind())
	}
	var findings []string
	for _, path := range pruning.PruneWithOptions(object, found.schema, true, structuralschema.UnknownFieldPathOptions{
		TrackUnknownFieldPaths: true,
	}) {
		findings = append(findings, fmt.Sprintf("unknown field %q", path))
	}
	problem, unknown := objectmeta.CoerceWithOptions(nil, object, found.schema, true, objectmeta.CoerceOptions{
		ReturnUnknownFieldPaths: true,
	})
	for _, path := range unknown {
		findings = append(findings, fmt.Sprintf("unknown field %q", path))
	}
	if problem != nil {
		return label, append(findings, problem.Error()), nil
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object, found.schema)
	defaulting.Default(object, found.schema)
	for _, err := range problems(&resource, found) {
		findings = append(findings, err.Error())
	}
	return label, findings, nil
}

func problems(resource *unstructured.Unstructured, found *definition) field.ErrorList {
	var errs field.ErrorList
	if meta, exists, err := objectmeta.GetObjectMeta(resource.Object, false); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("metadata"), nil, err.Error()))
	} else if !exists {
		errs = append(errs, field.Required(field.NewPath("metadata"), ""))
	} else {
		if found.namespaced && meta.Namespace == "" {
			// A client sends the namespace in the request's path where the manifest leaves it out.
			meta.Namespace = metav1.NamespaceDefault
		}
		if meta.Name == "" && meta.GenerateName != "" {
			meta.Name = meta.GenerateName + strings.Repeat("x", generatedLength)
		}
		errs = append(errs, metavalidation.ValidateObjectMeta(
			meta, found.namespaced, metavalidation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
	}
	errs = append(errs, objectmeta.Validate(nil, resource.Object, found.schema, true)...)
	errs = append(errs, validation.ValidateCustomResource(nil, resource.Object, found.validator)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, found.schema, resource.Object)...)
	if rules := cel.NewValidator(found.schema, true, celconfig.PerCallLimit); rules != nil && len(errs) == 0 {
		broken, _ := rules.Validate(
			context.Background(), nil, found.schema, resource.Object, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, broken...)
	}
	return errs
}
