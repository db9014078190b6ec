import type { Body, Migration } from "../../migration/migration.ts";
import { emptyChain, nextChain } from "../chain.ts";
import type { FolderBody, FolderMigration } from "./folder-body.ts";
import type { Place, SettledMigration } from "./sequence.ts";

/** Numbers the places of a sequence and links its chain; `toBody` says what is known of a file. */
export function linkPlaces<T>(
  stream: string,
  places: readonly Place<SettledMigration, FolderMigration<T>>[],
  toBody: (file: FolderBody<T>) => Body,
): readonly Migration[] {
  let chain = emptyChain(stream);
  return places.map(({ found, settled }, index) => {
    const seq = index + 1;
    // the label under which it was settled is part of the chain
    const up = { ...toBody(found.up), path: settled?.path ?? found.path };
    chain = nextChain(chain, { ...up, seq });
    return {
      ...up,
      seq,
      version: settled?.version ?? found.version,
      chain,
      ...(found.down && { down: toBody(found.down) }),
      ...(found.checkpoint && { checkpoint: toBody(found.checkpoint) }),
    };
  });
}
