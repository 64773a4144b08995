// Swagger UI over this controller's own OpenAPI document. The path is relative, so it works below a proxy's prefix.
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();

window.SwaggerUIBundle({
  url: "./openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false, // a token typed here is gone with the page
  tryItOutEnabled: true,
  validatorUrl: null, // nothing is asked of another origin
});
