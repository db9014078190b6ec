/** A small part of the input that still does the same: halves are left out first, then single bytes. */
export async function shrink(input: Buffer, isStill: (smaller: Buffer) => Promise<boolean>): Promise<Buffer> {
  let smallest = input;
  let tries = 1_000;
  for (let size = Math.ceil(smallest.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < smallest.length && tries > 0; tries--) {
      const smaller = Buffer.concat([smallest.subarray(0, at), smallest.subarray(at + size)]);
      if (await isStill(smaller)) smallest = smaller;
      else at += size;
    }
  }
  return smallest;
}
