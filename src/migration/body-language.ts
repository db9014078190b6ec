import type { Header } from "./header.ts";
import type { Engine } from "./migration.ts";
import type { SqlToSend } from "./unwrap-sql.ts";

/** What a run needs to know of bodies in one engine's language. */
export interface BodyLanguage {
  /**
   * @throws RunnerError `HEADER`; of MongoDB also `COMMAND_SYNTAX`, `TOO_LARGE`
   */
  readHeader(bytes: Uint8Array, text: string, path: string): Header;
  /** what is sent of a body that runs in one transaction */
  toSend(text: string): SqlToSend;
}

/** The language that an engine's bodies are in, loaded when asked for. */
export async function languageOf(engine: Engine): Promise<BodyLanguage> {
  switch (engine) {
    case "postgres": {
      const [{ parseHeader }, { sqlToSend }] = await Promise.all([
        import("./header.ts"),
        import("./unwrap-sql.ts"),
      ]);
      return { readHeader: (_bytes, text, path) => parseHeader(text, path), toSend: sqlToSend };
    }
    case "mongodb": {
      const { readCommands } = await import("./mongo/read-commands.ts");
      return {
        readHeader: (bytes, _text, path) => readCommands(bytes, path).header,
        toSend: (text) => ({ sql: text, offset: 0 }),
      };
    }
  }
}
