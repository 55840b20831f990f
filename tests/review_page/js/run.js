import { runAll } from "./harness.js";

const file = new URLSearchParams(window.location.search).get("file");
let told;
try {
  await import(`./${file}`);
  told = await runAll();
} catch (error) {
  told = { count: 0, failures: [String(error)] };
}
document.body.textContent = JSON.stringify(told);
document.body.dataset.ready = "yes";
