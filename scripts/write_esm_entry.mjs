#!/usr/bin/env node
// After tsc: the ECMAScript module entry over the CommonJS build, its types, and the command's executable bit.
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { createRequire } from 'node:module';

const dist = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), 'dist');
const entry = path.join(dist, 'index.js');

function stop(message) {
  console.error(`cellcam: ${message}`);
  process.exit(1);
}

if (!existsSync(entry)) stop(`Expected ${entry}, which tsc writes from lib/index.ts; run: npm run build:ts`);
// By name: what `export *` makes of a CommonJS module differs between versions of Node.
const names = Object.keys(createRequire(import.meta.url)(entry)).sort();
writeFileSync(
  path.join(dist, 'index.mjs'),
  `import cellcam from './index.js';\nexport const { ${names.join(', ')} } = cellcam;\n`,
);
writeFileSync(path.join(dist, 'index.d.mts'), "export * from './index.js';\n");

const command = path.join(dist, 'cli', 'main.js');
if (existsSync(command)) {
  if (!readFileSync(command, 'utf8').startsWith('#!')) stop(`Expected ${command} to start with #!/usr/bin/env node`);
  chmodSync(command, 0o755);
}
