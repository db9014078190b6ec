package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"ariga.io/atlas/sql/migrate"
	"ariga.io/atlas/sql/schema"
)

const (
	// defaultSchema is where the revisions are when the URL names no schema.
	defaultSchema = "atlas_schema_revisions"
	table         = "atlas_schema_revisions"
	// identifier is the version of a row that is no revision: the database's name in Atlas Cloud.
	identifier = ".atlas_cloud_identifier"
	columns    = "version, description, type, applied, total, executed_at, execution_time, error, error_stmt, hash, partial_hashes, operator_version"
)

// revisions keeps the table of revisions as the command line's ent schema does: same columns, types and defaults.
type revisions struct {
	db     schema.ExecQuerier
	schema string
}

var _ migrate.RevisionReadWriter = (*revisions)(nil)

func (r *revisions) name() string { return fmt.Sprintf("%q.%q", r.schema, table) }

func (r *revisions) create(ctx context.Context) error {
	statements := []string{
		fmt.Sprintf("CREATE SCHEMA IF NOT EXISTS %q", r.schema),
		`CREATE TABLE IF NOT EXISTS ` + r.name() + ` (
			version character varying NOT NULL,
			description character varying NOT NULL,
			type bigint NOT NULL DEFAULT 2,
			applied bigint NOT NULL DEFAULT 0,
			total bigint NOT NULL DEFAULT 0,
			executed_at timestamp with time zone NOT NULL,
			execution_time bigint NOT NULL,
			error text NULL,
			error_stmt text NULL,
			hash character varying NOT NULL,
			partial_hashes jsonb NULL,
			operator_version character varying NOT NULL,
			PRIMARY KEY (version)
		)`,
	}
	for _, statement := range statements {
		if _, err := r.db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (r *revisions) Ident() *migrate.TableIdent {
	return &migrate.TableIdent{Name: table, Schema: r.schema}
}

func (r *revisions) ReadRevisions(ctx context.Context) ([]*migrate.Revision, error) {
	return r.read(ctx, "version <> $1 ORDER BY version", identifier)
}

func (r *revisions) ReadRevision(ctx context.Context, version string) (*migrate.Revision, error) {
	found, err := r.read(ctx, "version = $1", version)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, migrate.ErrRevisionNotExist
	}
	return found[0], nil
}

func (r *revisions) read(ctx context.Context, where string, value any) (all []*migrate.Revision, err error) {
	rows, err := r.db.QueryContext(ctx, "SELECT "+columns+" FROM "+r.name()+" WHERE "+where, value)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var (
			rev                migrate.Revision
			failed, failedStmt sql.NullString
			hashes             []byte
		)
		if err := rows.Scan(&rev.Version, &rev.Description, &rev.Type, &rev.Applied, &rev.Total, &rev.ExecutedAt,
			&rev.ExecutionTime, &failed, &failedStmt, &rev.Hash, &hashes, &rev.OperatorVersion); err != nil {
			return nil, err
		}
		rev.Error, rev.ErrorStmt = failed.String, failedStmt.String
		if hashes != nil {
			if err := json.Unmarshal(hashes, &rev.PartialHashes); err != nil {
				return nil, err
			}
		}
		all = append(all, &rev)
	}
	return all, rows.Err()
}

// As ent writes it: no error is an empty text, no hashes are a JSON null, and what is immutable stays as it was first written.
func (r *revisions) WriteRevision(ctx context.Context, rev *migrate.Revision) error {
	hashes, err := json.Marshal(rev.PartialHashes)
	if err != nil {
		return err
	}
	var set []string
	for _, name := range strings.Split(columns, ", ") {
		if name != "version" && name != "description" && name != "executed_at" {
			set = append(set, name+" = excluded."+name)
		}
	}
	_, err = r.db.ExecContext(ctx, "INSERT INTO "+r.name()+" ("+columns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"+
		" ON CONFLICT (version) DO UPDATE SET "+strings.Join(set, ", "),
		rev.Version, rev.Description, int64(rev.Type), rev.Applied, rev.Total, rev.ExecutedAt, int64(rev.ExecutionTime),
		rev.Error, rev.ErrorStmt, rev.Hash, string(hashes), rev.OperatorVersion)
	return err
}

func (r *revisions) DeleteRevision(ctx context.Context, version string) error {
	_, err := r.db.ExecContext(ctx, "DELETE FROM "+r.name()+" WHERE version = $1", version)
	return err
}
