package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the sample database

	"github.com/fairleadhq/fairlead/internal/cli"
)

type sampleCommand struct {
	Dir string `required:"" type:"path" placeholder:"DIR" help:"Folder to write agent.yaml, shop.db and papers/ into; made when missing. Nothing that is there is replaced."`
}

func (*sampleCommand) Examples() []string {
	return []string{"fairlead-agent sample --dir ./site", "fairlead-agent check --config ./site/agent.yaml"}
}

const sampleYAML = `# A sample site: one database that may be read, one folder that may be read and written. Nothing else is reached.
version: 1
database:
  shop:
    adapter: sqlite
    path: %s
    allow:
      mode: read_only
      max_rows: 1000
      timeout: 10s
    mask:
      columns: ["*.email"]        # answers and events show [masked]
files:
  papers:
    base: %s
    allow: [list, read, write]
    max_size: 100MB
`

const sampleSQL = `
create table customers (id integer primary key, name text not null, email text not null, total decimal(10,2) not null);
create table orders (id integer primary key, customer integer not null references customers(id), placed text not null, amount decimal(10,2) not null);
insert into customers values
  (1,'Ada Lovelace','ada@example.com',1250.50),(2,'Grace Hopper','grace@example.com',830.00),
  (3,'Edsger Dijkstra','edsger@example.com',99.90),(4,'Barbara Liskov','barbara@example.com',4210.75);
insert into orders values
  (1,1,'2026-10-02',1000.00),(2,1,'2026-10-19',250.50),(3,2,'2026-11-03',830.00),(4,3,'2026-11-05',99.90),(5,4,'2026-11-11',4210.75);
`

func (c *sampleCommand) Run(ctx context.Context, t *cli.Term) (err error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("find the folder: %w", err)
	}
	yaml, db, papers := filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "shop.db"), filepath.Join(dir, "papers")
	for _, p := range []string{yaml, db, papers} {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			return cli.Usage("%s is there already; name another --dir", p)
		}
	}
	if err := os.MkdirAll(papers, 0o750); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	for name, text := range map[string]string{"report.csv": "month,total\n2026-10,1250.50\n2026-11,5140.65\n", "readme.txt": "A sample folder behind a Fairlead agent.\n"} {
		if err := os.WriteFile(filepath.Join(papers, name), []byte(text), 0o640); err != nil {
			return fmt.Errorf("write a sample file: %w", err)
		}
	}
	conn, err := sql.Open("sqlite", "file:"+filepath.ToSlash(db))
	if err != nil {
		return fmt.Errorf("make the sample database: %w", err)
	}
	_, err = conn.ExecContext(ctx, sampleSQL)
	if err = errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("fill the sample database: %w", err)
	}
	if err := os.WriteFile(yaml, fmt.Appendf(nil, sampleYAML, db, papers), 0o600); err != nil {
		return fmt.Errorf("write agent.yaml: %w", err)
	}
	t.Printf("wrote %s, %s and %s\n", yaml, db, papers)
	return nil
}
