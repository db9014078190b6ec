// Command atlas does what `atlas migrate apply` and `atlas migrate hash` do, by Atlas's own executor and checksums.
//
// Atlas's command line cannot be installed from the Go module proxy: its module holds only the library. The library has
// everything that decides: how a folder is read and verified against atlas.sum, how files are split, which are pending, in
// which order they run, and what is recorded of each. The command line adds three things, which are made here after it: the
// table of revisions (as ent creates it), the transaction around each file, and the lock.
//
//	atlas apply --dir DIR --url URL [--baseline V] [--allow-dirty] [--exec-order ORDER] [--tx-mode MODE] [--revisions-schema S] [N]
//	atlas hash --dir DIR
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"ariga.io/atlas/sql/migrate"
	_ "ariga.io/atlas/sql/postgres"
	"ariga.io/atlas/sql/sqlclient"
	_ "github.com/lib/pq"
)

const (
	version  = "v1.2.0"
	lockName = "atlas_migrate_execute"
)

type flags struct {
	dir, url, baseline, order, txMode, schema string
	allowDirty                                bool
	lockTimeout                               time.Duration
	amount                                    int
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("atlas apply or atlas hash")
	}
	var f flags
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	set.StringVar(&f.dir, "dir", "", "folder of migrations")
	set.StringVar(&f.url, "url", "", "database")
	set.StringVar(&f.baseline, "baseline", "", "the version that the database has already")
	set.StringVar(&f.order, "exec-order", "linear", "linear, linear-skip or non-linear")
	set.StringVar(&f.txMode, "tx-mode", "file", "none or file")
	set.StringVar(&f.schema, "revisions-schema", "", "where the table of revisions is")
	set.BoolVar(&f.allowDirty, "allow-dirty", false, "begin in a database that is not empty")
	set.DurationVar(&f.lockTimeout, "lock-timeout", 10*time.Second, "how long to wait for the lock")
	if err := set.Parse(args[1:]); err != nil {
		return err
	}
	if set.NArg() > 0 {
		amount, err := strconv.Atoi(set.Arg(0))
		if err != nil {
			return err
		}
		f.amount = amount
	}
	dir, err := migrate.NewLocalDir(f.dir)
	if err != nil {
		return err
	}
	switch args[0] {
	case "apply":
		return apply(ctx, dir, f)
	case "hash":
		sum, err := dir.Checksum()
		if err != nil {
			return err
		}
		return migrate.WriteSumFile(dir, sum)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func apply(ctx context.Context, dir migrate.Dir, f flags) error {
	client, err := sqlclient.Open(ctx, f.url)
	if err != nil {
		return err
	}
	defer client.Close()
	unlock, err := client.Driver.Lock(ctx, lockName, f.lockTimeout)
	if err != nil {
		return fmt.Errorf("acquiring database lock: %w", err)
	}
	defer unlock()

	schema := f.schema
	if schema == "" {
		schema = client.URL.Schema
	}
	if schema == "" {
		schema = defaultSchema
	}
	revs := &revisions{db: client.Driver, schema: schema}
	if err := revs.create(ctx); err != nil {
		return err
	}
	options, err := executorOptions(f)
	if err != nil {
		return err
	}
	executor, err := migrate.NewExecutor(client.Driver, dir, revs, options...)
	if err != nil {
		return err
	}
	pending, err := executor.Pending(ctx)
	if errors.Is(err, migrate.ErrNoPendingFiles) {
		fmt.Println("No migration files to execute")
		return nil
	}
	if err != nil {
		return err
	}
	if f.amount > 0 && f.amount < len(pending) {
		pending = pending[:f.amount]
	}
	for _, file := range pending {
		if err := execute(ctx, client, dir, file, schema, f.txMode, options); err != nil {
			return err
		}
		fmt.Println("migrated", file.Name())
	}
	return nil
}

// execute runs one file and its revisions, in one transaction unless the file or the caller says none.
func execute(ctx context.Context, client *sqlclient.Client, dir migrate.Dir, file migrate.File, schema, mode string, options []migrate.ExecutorOption) error {
	if local, ok := file.(interface{ Directive(string) []string }); ok {
		if said := local.Directive("txmode"); len(said) > 0 {
			mode = said[0]
		}
	}
	switch mode {
	case "none":
		executor, err := migrate.NewExecutor(client.Driver, dir, &revisions{client.Driver, schema}, options...)
		if err != nil {
			return err
		}
		return executor.Execute(ctx, file)
	case "file":
	default:
		return fmt.Errorf("unknown txmode %q found in file directive %q", mode, file.Name())
	}
	tx, err := client.Tx(ctx, nil)
	if err != nil {
		return err
	}
	executor, err := migrate.NewExecutor(tx.Driver, dir, &revisions{tx.Driver, schema}, options...)
	if err == nil {
		err = executor.Execute(ctx, file)
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func executorOptions(f flags) ([]migrate.ExecutorOption, error) {
	orders := map[string]migrate.ExecOrder{
		"linear":      migrate.ExecOrderLinear,
		"linear-skip": migrate.ExecOrderLinearSkip,
		"non-linear":  migrate.ExecOrderNonLinear,
	}
	order, ok := orders[f.order]
	if !ok {
		return nil, fmt.Errorf("unknown execution order %q", f.order)
	}
	options := []migrate.ExecutorOption{migrate.WithExecOrder(order), migrate.WithOperatorVersion("ariga.io/atlas " + version)}
	if f.allowDirty {
		options = append(options, migrate.WithAllowDirty(true))
	}
	if f.baseline != "" {
		options = append(options, migrate.WithBaselineVersion(f.baseline))
	}
	return options, nil
}
