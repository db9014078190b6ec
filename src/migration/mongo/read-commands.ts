import { decodeBody } from "../decode.ts";
import type { Header } from "../header.ts";
import { locateUnit, type TextPosition } from "../position.ts";
import { quote } from "../format/folder-problem.ts";
import { beginsHeader, readCommandHeader } from "./command-header.ts";
import { codes, JsonText, type Remark } from "./json-text.ts";
import { readDocument, readItems, readValue, startReading, type ReadingState } from "./read-value.ts";
import type { Command } from "./value.ts";

/** A body of MongoDB: a JSON array of commands, as golang-migrate's `.json` files hold it. */
export interface CommandBody {
  /** of a first element `{"$lockkeeper": {…}}`, which is no command */
  readonly header: Header;
  readonly commands: readonly Command[];
  /** the first thing in it that golang-migrate would not take; undefined where it takes the whole file */
  readonly beyond: BodyRemark | undefined;
  /** what golang-migrate reads as we do, and what may not have been meant */
  readonly oddities: readonly BodyRemark[];
}

/** Something to hear of a body, and where. */
export interface BodyRemark extends TextPosition {
  readonly what: string;
}

/**
 * Reads a body's commands: all that golang-migrate reads (mongo-driver 1.7.5, canonical Extended JSON), to the same
 * values, and a little more, which `beyond` names.
 *
 * Like there, comments are no JSON, `null` in place of the array holds no commands, and what stands after the array is
 * left unread.
 *
 * @throws RunnerError `ENCODING`; `COMMAND_SYNTAX` - no array of commands in JSON; `HEADER`; `TOO_LARGE` - too deep or too many values
 */
export function readCommands(bytes: Uint8Array, path: string): CommandBody {
  const json = new JsonText(decodeBody(bytes, path), path);
  if (json.text.charCodeAt(0) === BOM) {
    json.remark("beyond", 0, "a byte order mark");
    json.index = 1;
  }
  const { header, commands } = readBody(json);
  const remarks = json.remarks.toSorted((a, b) => a.index - b.index);
  const beyond = remarks.find(({ kind }) => kind === "beyond");
  return {
    header,
    commands,
    beyond: beyond === undefined ? undefined : locateRemark(json, beyond),
    oddities: remarks.filter(({ kind }) => kind === "odd").map((remark) => locateRemark(json, remark)),
  };
}

/**
 * Reads one command that stands alone: the throttle of a header.
 *
 * @throws RunnerError `COMMAND_SYNTAX`, `TOO_LARGE`
 */
export function readCommand(text: string, path: string): Command {
  const json = new JsonText(text, path);
  return readElement(startReading(json, 1), new Ruler(text));
}

const BOM = 0xfeff;

function readBody(json: JsonText): Pick<CommandBody, "header" | "commands"> {
  const code = json.peek();
  const start = json.index;
  if (Number.isNaN(code)) {
    json.remark("beyond", start, "an empty file");
    return { header: {}, commands: [] };
  }
  if (code === codes.openBrace)
    throw json.error(start, "a document in place of an array of commands", "put it between [ and ]");
  const state = startReading(json, 0);
  if (code !== codes.openBracket) {
    if (readValue(state).kind === "null") return { header: {}, commands: [] };
    throw json.error(start, "no array of commands", 'write [{"ping": 1}]: a document for each command');
  }
  const body = readArray(state);
  if (!Number.isNaN(json.peek()))
    json.remark("odd", json.index, "what follows the array's closing bracket is not read");
  return body;
}

function readArray(state: ReadingState): Pick<CommandBody, "header" | "commands"> {
  const { json } = state;
  const ruler = new Ruler(json.text);
  const commands: Command[] = [];
  let header: Header | undefined;
  readItems(state, () => {
    const isFirst = commands.length === 0 && header === undefined;
    if (!beginsHeader(json)) commands.push(readElement(state, ruler));
    else if (isFirst) header = readCommandHeader(state);
    else
      throw json.error(json.index, "a lockkeeper header after the first element", "put it first", "HEADER");
  });
  return { header: header ?? {}, commands };
}

function readElement(state: ReadingState, ruler: Ruler): Command {
  const { json } = state;
  const code = json.peek();
  const start = json.index;
  if (code !== codes.openBrace) {
    const { kind } = readValue(state);
    const what = kind === "null" ? "null" : `${kind === "array" ? "an" : "a"} ${kind}`;
    throw json.error(start, `${what} in place of a command`, 'a command is a document such as {"ping": 1}');
  }
  const document = readDocument(state);
  const [first] = document.entries;
  if (first === undefined) throw json.error(start, "a command without a name", 'write {"ping": 1}');
  const [name] = first;
  if (name.startsWith("$") || name === "")
    throw json.error(
      start,
      `no command is called ${quote(name)}`,
      "the first key of a document is its command's name",
    );
  const { offset, line } = ruler.measure(start);
  return { name, document, offset, length: ruler.measure(json.index).offset - offset, line };
}

/** Bytes and lines before places of a text that are asked for in ascending order, each part of it counted once. */
class Ruler {
  readonly #text: string;
  #index = 0;
  #offset = 0;
  #line = 1;

  constructor(text: string) {
    this.#text = text;
  }

  measure(index: number): { readonly offset: number; readonly line: number } {
    const passed = this.#text.slice(this.#index, index);
    this.#offset += Buffer.byteLength(passed);
    this.#line += passed.match(/\r\n|\r|\n/g)?.length ?? 0;
    this.#index = index;
    return { offset: this.#offset, line: this.#line };
  }
}

function locateRemark(json: JsonText, { index, what }: Remark): BodyRemark {
  return { ...locateUnit(json.text, index), what };
}
