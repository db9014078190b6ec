import type { SpentUse } from "../runs.ts";
import { commandError, errorCode } from "./command-error.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import { tokenClaim } from "./runs.ts";

const limit = { maxTimeMS: answerMs } as const;

/**
 * Uses an id up in the document of the run that it is about: beside the claim of the token stands what it was used for,
 * so a token that asked for this run cannot do something else to it as well, but may ask for it again. Of a run that is not there, nothing is kept.
 */
export async function spendUse({ collections }: MongoDatabase, use: SpentUse): Promise<boolean> {
  const { runId, bodyDigest } = use;
  const claim = tokenClaim(use);
  const purpose = `${claim} for ${bodyDigest}`;
  try {
    const { matchedCount } = await collections.runs.updateOne(
      { _id: runId, $or: [{ claims: { $ne: claim } }, { claims: purpose }, { bodyDigest }] },
      { $addToSet: { claims: { $each: [claim, purpose] } } },
      limit,
    );
    return matchedCount === 1 || (await collections.runs.findOne({ _id: runId }, limit)) === null;
  } catch (cause) {
    if (commandError(cause)?.code === errorCode.duplicateKey) return false;
    throw cause;
  }
}
