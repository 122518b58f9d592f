// A provider for OpenTofu that has a schema and nothing else: it makes no resource and asks nobody.
// It reads the schema from schema.json beside itself, as tools/google_schema.py writes it.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"path/filepath"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

type block struct {
	Attributes map[string]struct {
		Type               json.RawMessage
		Required, Optional bool
	}
	Blocks map[string]struct {
		Min, Max int64
		Block    block
	}
}

type published struct {
	Provider    block
	Resources   map[string]block
	DataSources map[string]block `json:"data-sources"`
}

// provider answers what `tofu validate` asks; any other question ends it.
type provider struct {
	tfprotov6.ProviderServer
	schema published
}

func (one block) convert() (*tfprotov6.SchemaBlock, error) {
	converted := &tfprotov6.SchemaBlock{}
	for name, attribute := range one.Attributes {
		kind, err := tftypes.ParseJSONType(attribute.Type)
		if err != nil {
			return nil, err
		}
		converted.Attributes = append(converted.Attributes, &tfprotov6.SchemaAttribute{
			Name: name, Type: kind, Required: attribute.Required, Optional: attribute.Optional, Computed: !attribute.Required,
		})
	}
	for name, nested := range one.Blocks {
		inner, err := nested.Block.convert()
		if err != nil {
			return nil, err
		}
		nesting := tfprotov6.SchemaNestedBlockNestingModeList
		if name == "timeouts" {
			nesting, nested.Max = tfprotov6.SchemaNestedBlockNestingModeSingle, 0
		}
		converted.BlockTypes = append(converted.BlockTypes, &tfprotov6.SchemaNestedBlock{
			TypeName: name, Block: inner, Nesting: nesting, MinItems: nested.Min, MaxItems: nested.Max,
		})
	}
	return converted, nil
}

func schemas(blocks map[string]block) (map[string]*tfprotov6.Schema, error) {
	all := map[string]*tfprotov6.Schema{}
	for name, one := range blocks {
		converted, err := one.convert()
		if err != nil {
			return nil, err
		}
		all[name] = &tfprotov6.Schema{Block: converted}
	}
	return all, nil
}

func (p provider) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	own, err := schemas(map[string]block{"": p.schema.Provider})
	if err != nil {
		return nil, err
	}
	resources, err := schemas(p.schema.Resources)
	if err != nil {
		return nil, err
	}
	sources, err := schemas(p.schema.DataSources)
	return &tfprotov6.GetProviderSchemaResponse{Provider: own[""], ResourceSchemas: resources, DataSourceSchemas: sources}, err
}

func (provider) ValidateProviderConfig(context.Context, *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{}, nil
}

func (provider) ValidateResourceConfig(context.Context, *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{}, nil
}

func (provider) ValidateDataResourceConfig(context.Context, *tfprotov6.ValidateDataResourceConfigRequest) (*tfprotov6.ValidateDataResourceConfigResponse, error) {
	return &tfprotov6.ValidateDataResourceConfigResponse{}, nil
}

func (provider) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}

func main() {
	place, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(place), "schema.json"))
	if err != nil {
		log.Fatal(err)
	}
	var schema published
	if err := json.Unmarshal(text, &schema); err != nil {
		log.Fatal(err)
	}
	serve := func() tfprotov6.ProviderServer { return provider{schema: schema} }
	if err := tf6server.Serve("registry.opentofu.org/hashicorp/google", serve); err != nil {
		log.Fatal(err)
	}
}
