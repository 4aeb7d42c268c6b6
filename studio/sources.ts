// One hash over everything the built page is made of; tests/studio/test_built.py computes the same without node.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const SINGLE = ["index.html", "package-lock.json", "package.json", "sources.ts", "tsconfig.json", "vite.config.ts"];

export function sourcesHash(home: string): string {
  const inside = readdirSync(join(home, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(home.length + 1).replaceAll("\\", "/"));
  const hash = createHash("sha256");
  for (const name of [...SINGLE, ...inside].sort()) {
    hash.update(`${name}\0`).update(createHash("sha256").update(readFileSync(join(home, name))).digest("hex")).update("\n");
  }
  return hash.digest("hex");
}
