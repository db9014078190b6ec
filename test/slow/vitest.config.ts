import { defineConfig } from "vitest/config";
import usual from "../../vitest.config.ts";

export default defineConfig({
  test: {
    ...usual.test,
    include: ["test/slow/**/*.slow.ts"],
    testTimeout: 180_000,
    hookTimeout: 180_000,
  },
});
