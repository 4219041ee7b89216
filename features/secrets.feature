Feature: No secret is ever shown
  Status, metrics, errors and log are free of secrets, however the nodes fail.

  Scenario Outline: Keys in URLs and headers stay hidden from a node that <fails>
    Given a primary geth whose URL and headers hold secrets
    And a primary besu whose URL holds a user and a password
    And the settings:
      | log.filter | "trace"  |
      | calls.hold | "200ms"  |
    And the proxy runs as a process of its own
    And the secrets do reach the nodes
    When geth <fails>
    And besu <fails>
    Then geth is found down
    And besu is found down
    And no secret is shown anywhere

    Examples:
      | fails                                   |
      | goes down                               |
      | hangs                                   |
      | answers with garbage                    |
      | answers with HTTP 500                   |
      | breaks off in the middle of its answers |

  Scenario Outline: Keys stay hidden when the node itself names them: <words>
    Given a primary geth whose URL and headers hold secrets
    And a primary besu whose URL holds a user and a password
    And the settings:
      | log.filter | "trace" |
      | calls.hold | "200ms" |
    And the proxy runs as a process of its own
    And the secrets do reach the nodes
    When geth complains of "<words>" after <letters> other letters
    And besu complains of "<others>"
    Then the status shows an error of geth that holds "eth_"
    And the status shows an error of besu that holds "eth_"
    And geth is found down
    And besu is found down
    And no secret is shown anywhere

    Examples:
      | words                      | letters | others                                  |
      | no key /v2/pathKey0001     | 3       | unknown user userName0003               |
      | bad queryKey0002           | 3       | wrong password passWord0004             |
      | Bearer tokenKey0005        | 3       | userName0003:passWord0004               |
      | invalid token tokenKey0005 | 3       | dXNlck5hbWUwMDAzOnBhc3NXb3JkMDAwNA==    |
      | plainKey0006plainKey0006   | 252     | x                                       |
