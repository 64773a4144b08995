// Sends a large body by java.net.http and prints the answer's status and body.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Refused {
    public static void main(String[] given) throws Exception {
        byte[] body = new byte[Integer.parseInt(System.getenv("METIS_BODY"))];
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(given[0] + given[2]))
                .version(HttpClient.Version.HTTP_1_1)
                .header("Content-Type", given[3])
                .method(given[1], HttpRequest.BodyPublishers.ofByteArray(body));
        if (!given[4].isEmpty()) {
            request.header("Authorization", "Bearer " + given[4]);
        }
        HttpResponse<String> answer =
                HttpClient.newHttpClient().send(request.build(), HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.statusCode() + " " + answer.body());
    }
}
