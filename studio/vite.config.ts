import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";
import { sourcesHash } from "./sources.ts";

const home = dirname(fileURLToPath(import.meta.url));

function stamp(): Plugin {
  return {
    name: "stamp",
    generateBundle() {
      this.emitFile({ type: "asset", fileName: "sources.json", source: `${JSON.stringify({ sha256: sourcesHash(home) })}\n` });
    },
  };
}

// npm run dev answers at http://localhost:5173/studio/ and asks a running service for everything else
const service = process.env.VITRAIL_SERVICE ?? "http://127.0.0.1:8000";

export default defineConfig({
  base: "/studio/",
  plugins: [react(), stamp()],
  build: { outDir: "../src/vitrail/serve/studio", emptyOutDir: true, modulePreload: { polyfill: false }, assetsInlineLimit: 0, target: "es2022", reportCompressedSize: true },
  server: { proxy: { "/studio/api": service, "/events": service, "/models": service } },
});
