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

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func (one block) convert() *tfprotov6.SchemaBlock {
	converted := &tfprotov6.SchemaBlock{}
	for name, attribute := range one.Attributes {
		converted.Attributes = append(converted.Attributes, &tfprotov6.SchemaAttribute{
			Name: name, Type: must(tftypes.ParseJSONType(attribute.Type)),
			Required: attribute.Required, Optional: attribute.Optional, Computed: !attribute.Required,
		})
	}
	for name, nested := range one.Blocks {
		nesting := tfprotov6.SchemaNestedBlockNestingModeList
		if name == "timeouts" {
			nesting, nested.Max = tfprotov6.SchemaNestedBlockNestingModeSingle, 0
		}
		converted.BlockTypes = append(converted.BlockTypes, &tfprotov6.SchemaNestedBlock{
			TypeName: name, Block: nested.Block.convert(), Nesting: nesting, MinItems: nested.Min, MaxItems: nested.Max,
		})
	}
	return converted
}

func schemas(blocks map[string]block) map[string]*tfprotov6.Schema {
	all := map[string]*tfprotov6.Schema{}
	for name, one := range blocks {
		all[name] = &tfprotov6.Schema{Block: one.convert()}
	}
	return all
}

func (p provider) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	return &tfprotov6.GetProviderSchemaResponse{
		Provider:          &tfprotov6.Schema{Block: p.schema.Provider.convert()},
		ResourceSchemas:   schemas(p.schema.Resources),
		DataSourceSchemas: schemas(p.schema.DataSources),
	}, nil
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

func main() {
	place := must(os.Executable())
	var schema published
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(filepath.Dir(place), "schema.json"))), &schema); err != nil {
		log.Fatal(err)
	}
	serve := func() tfprotov6.ProviderServer { return provider{schema: schema} }
	if err := tf6server.Serve("schemas.invalid/hashicorp/google", serve); err != nil {
		log.Fatal(err)
	}
}
