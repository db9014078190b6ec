import pg, { type Connection, type Submittable } from "pg";

/** One row, by column name. */
export type Row = Readonly<Record<string, unknown>>;

/** What one statement of a message gave. */
export interface StatementResult {
  readonly rowCount: number | null;
  readonly rows: readonly Row[];
}

/** A column, as the server describes it before its rows. */
interface Column {
  readonly name: string;
  readonly dataTypeID: number;
}

/** What makes rows of a statement's values. */
interface Shape {
  readonly empty: Row;
  /** undefined: a later one of the same name counts */
  readonly columns: readonly ({ readonly name: string; read(text: string): unknown } | undefined)[];
}

const none: readonly Row[] = [];
/** `INSERT 0 5`, `SELECT 5`: its last number */
const rowCountText = / (\d+)$/;

/**
 * One message of the simple protocol, and its answer. As `pg` has it, but for what is kept while the rest of the answer
 * is on its way: a message has some thousands of statements, nearly all without a row, and a whole `pg.Result` for each
 * would be most of a run's memory.
 */
export class SimpleQuery implements Submittable {
  /** a result for each statement, of which there was at least one, when all of the message succeeded */
  readonly answer: Promise<readonly StatementResult[]>;
  readonly #text: string;
  readonly #settle: PromiseWithResolvers<readonly StatementResult[]>;
  readonly #results: StatementResult[] = [];
  #shape: Shape | undefined;
  #rows: Row[] | undefined;
  #unreadable: unknown;

  constructor(text: string) {
    this.#text = text;
    this.#settle = Promise.withResolvers();
    this.answer = this.#settle.promise;
  }

  submit(connection: Connection): void {
    connection.query(this.#text);
  }

  handleRowDescription({ fields }: { readonly fields: readonly Column[] }): void {
    this.#shape = shapeOf(fields);
    this.#rows = [];
  }

  handleDataRow({ fields }: { readonly fields: readonly (string | null)[] }): void {
    if (this.#shape === undefined || this.#unreadable !== undefined) return;
    try {
      this.#rows?.push(readRow(this.#shape, fields));
    } catch (cause) {
      this.#unreadable = cause;
    }
  }

  handleCommandComplete({ text }: { readonly text: string }): void {
    const rowCount = rowCountText.exec(text)?.[1];
    this.#results.push({
      rowCount: rowCount === undefined ? null : Number(rowCount),
      rows: this.#rows ?? none,
    });
    this.#shape = undefined;
    this.#rows = undefined;
  }

  handleEmptyQuery(): void {
    this.#results.push({ rowCount: null, rows: none });
  }

  /** `COPY FROM STDIN`: there is nothing to send. */
  handleCopyInResponse(connection: Connection & { sendCopyFail(why: string): void }): void {
    connection.sendCopyFail("No source stream defined");
  }

  /** `COPY TO STDOUT`: nobody reads it. */
  handleCopyData(): void {}

  handleError(cause: unknown): void {
    this.#settle.reject(this.#unreadable ?? cause);
  }

  handleReadyForQuery(): void {
    if (this.#unreadable === undefined) this.#settle.resolve(this.#results);
    else this.#settle.reject(this.#unreadable);
  }
}

function shapeOf(fields: readonly Column[]): Shape {
  const last = new Map(fields.map(({ name }, index) => [name, index]));
  return {
    // As own properties, so that a column of any name is nothing but a column.
    empty: Object.fromEntries(fields.map(({ name }) => [name, null])),
    columns: fields.map(({ name, dataTypeID }, index) =>
      last.get(name) === index ? { name, read: readerOf(dataTypeID) } : undefined,
    ),
  };
}

const readerOf: (type: number) => (text: string) => unknown = pg.types.getTypeParser;

function readRow({ empty, columns }: Shape, values: readonly (string | null)[]): Row {
  const row: Record<string, unknown> = { ...empty };
  for (let index = 0; index < values.length; index += 1) {
    const column = columns[index];
    const value = values[index];
    if (column !== undefined && typeof value === "string") row[column.name] = column.read(value);
  }
  return row;
}
