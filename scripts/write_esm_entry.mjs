#!/usr/bin/env node
// After tsc: the ECMAScript module entry over the CommonJS build, its types, and the command's executable bit.
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createRequire } from 'node:module';

const dist = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), 'dist');
const entry = path.join(dist, 'index.js');

function stop(message) {
  console.error(`cellcam: ${message}`);
  process.exit(1);
}

/** Node reads a CommonJS module's names from its text; a name it cannot see could not be imported. */
async function unseenNames() {
  const required = Object.keys(createRequire(import.meta.url)(entry));
  const seen = Object.keys(await import(pathToFileURL(path.join(dist, 'index.mjs'))));
  return required.filter((name) => !seen.includes(name));
}

if (!existsSync(entry)) stop(`Expected ${entry}, which tsc writes from lib/index.ts; run: npm run build:ts`);
writeFileSync(path.join(dist, 'index.mjs'), "export * from './index.js';\n");
writeFileSync(path.join(dist, 'index.d.mts'), "export * from './index.js';\n");
const unseen = await unseenNames();
if (unseen.length > 0) stop(`dist/index.mjs does not export ${unseen.join(', ')}: export each by name in lib/index.ts`);

const command = path.join(dist, 'cli', 'main.js');
if (existsSync(command)) {
  if (!readFileSync(command, 'utf8').startsWith('#!')) stop(`Expected ${command} to start with #!/usr/bin/env node`);
  chmodSync(command, 0o755);
}
