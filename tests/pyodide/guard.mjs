// Runs facts.py in npm's pyodide, as a page runs a cell, and prints as JSON what it found,
// with the `complaints` that Python wrote to its standard error.
//
//     node guard.mjs NODE_MODULES WHEEL...
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, ...wheels] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(join(modules, "pyodide", "pyodide.mjs")));

const complaints = [];
const python = await loadPyodide({
  stdout: console.error,
  stderr: (line) => complaints.push(line),
});
for (const wheel of wheels) {
  python.unpackArchive(new Uint8Array(readFileSync(wheel)), "wheel");
}
python.runPython("import warnings\nwarnings.simplefilter('error')"); // as in all other tests
const source = readFileSync(new URL("facts.py", import.meta.url), "utf8");
const collect = "import gc, json\nfound = facts()\ngc.collect()\njson.dumps(found)";
try {
  const found = JSON.parse(await python.runPythonAsync(`${source}\n${collect}`));
  console.log(JSON.stringify({ ...found, complaints }));
} catch (error) {
  // Left to itself Node would add a megabyte of minified source.
  console.error([...complaints, error.message].join("\n"));
  process.exitCode = 1;
}
