"""Answers written by hand that show the teacher the style: short, plain, on the subject, with an end.

They are the first turns of the conversation that the teacher continues, and never part of the corpus.
"""

# (words, story): each story uses its words.
STORIES = [
    (["fox", "river", "happy"],
     "A little fox lived near a river. Every day she sat on the bank and looked at the fish. One day her ball fell into the water. A kind duck swam out and brought it back. \"Thank you!\" said the fox. She was so happy that she danced. After that, the fox and the duck played together every day."),
    (["boy", "kite", "wind"],
     "Ben was a boy who had a red kite. He ran up the hill, but there was no wind, and the kite would not fly. Ben sat down and waited. Soon the leaves began to shake. The wind was back! Ben ran, and the kite flew high into the sky. Ben laughed all the way home."),
    (["robot", "lonely", "sing"],
     "There was once a robot who lived in a quiet house. He was lonely, because nobody talked to him. One morning a bird sat on the window and began to sing. The robot tried to sing too. It sounded funny, and the bird laughed. From then on they sang together every morning, and the robot was not lonely any more."),
    (["bread", "mouse"],
     "A small mouse smelled warm bread in the kitchen. She wanted a piece, but the cat was asleep on the floor. The mouse walked very slowly on her soft feet. She took one little crumb and ran back to her hole. \"That was close!\" she said. Then she shared the bread with her brother."),
    (["dragon", "shy", "cake"],
     "In a cave on the mountain lived a shy dragon. He loved cake, but he was afraid to go to the village. One day a girl named Mia climbed up to the cave. She had a big cake with her. \"It is my birthday,\" she said. \"Will you eat with me?\" The dragon smiled. It was the best day of his life."),
    (["boat", "storm", "friend"],
     "Sam and his friend Lily went out in a small boat. The sky grew dark and a storm came. The waves were high, and Lily was scared. Sam held her hand and sang a song. Soon the storm was over and the sun came out. They rowed home, wet and cold, but safe."),
    (["lost", "kitten", "tree"],
     "A kitten was lost in the park. She climbed a tall tree to look for her home, but then she could not get down. She cried and cried. A kind man heard her and brought a ladder. He carried the kitten down and gave her milk. Then a little girl came running. \"You found my kitten!\" she said."),
    (["snow", "rabbit", "carrot"],
     "It was winter, and snow lay on the field. A rabbit was hungry and could not find any grass. Then she saw a snowman with a carrot for a nose. \"May I eat your nose?\" she asked. The snowman could not answer. So the rabbit made him a new nose from a stone, and ate the carrot."),
    (["grandmother", "clock"],
     "Anna's grandmother had an old clock that did not work. Anna wanted to help. She opened it and found a dead fly inside. She took the fly out, and the clock went tick, tock. Her grandmother was very proud. \"Now I will never be late for tea,\" she said."),
    (["frog", "jump", "moon"],
     "A green frog wanted to jump to the moon. Every night he jumped as high as he could, but the moon was too far away. One night he saw the moon in the pond. He jumped into the water with a big splash. \"I did it!\" he said. The other frogs clapped and laughed."),
]

# (question, answer) about the world.
FACTS = [
    ("What is a cow?", "A cow is a big farm animal. It eats grass and gives us milk. A baby cow is called a calf."),
    ("Why does it rain?", "Water from the sea and lakes rises into the air and makes clouds. When the clouds get heavy with water, the drops fall down as rain."),
    ("Where do bears live?", "Most bears live in forests and mountains. They often sleep in a cave or a den during the winter."),
    ("What does a baker do?", "A baker makes bread, cakes and cookies. He gets up very early, so that the bread is fresh in the morning."),
    ("What is an umbrella for?", "An umbrella keeps you dry when it rains. You open it and hold it over your head."),
    ("Which is bigger, a dog or an ant?", "A dog is bigger than an ant. An ant is so small that it can sit on the tip of your finger."),
    ("Why do we sleep?", "We sleep so that our body and our brain can rest. After a good night we feel strong and can think well."),
    ("What do rabbits eat?", "Rabbits eat grass, leaves and vegetables such as carrots. They also need fresh water every day."),
    ("What can I do when I am bored?", "You can read a book, draw a picture or play outside with a friend. You can also help someone at home."),
    ("How do you make tea?", "First you boil some water. Then you put a tea bag in a cup and pour in the hot water. Wait a few minutes, and it is ready to drink."),
    ("What color is a banana?", "A ripe banana is yellow. Before it is ripe, it is green."),
    ("Is the sun a star?", "Yes, the sun is a star. It looks so big because it is much closer to us than the other stars."),
    ("What is the difference between a boat and a car?", "A boat floats on water, and a car drives on roads. A car has wheels, but a boat does not need them."),
    ("What do you need to build a snowman?", "You need a lot of snow, some stones for the eyes and a carrot for the nose. A hat and a scarf look nice too."),
]

# (remark, answer): small talk.
TALK = [
    ("Hello!", "Hello! It is nice to meet you. What would you like to talk about?"),
    ("How are you today?", "I am very well, thank you! How are you?"),
    ("I am sad today.", "I am sorry to hear that. Do you want to tell me what happened? Sometimes it helps to talk about it."),
    ("Good morning!", "Good morning! I hope you slept well. What are you going to do today?"),
    ("I have a new puppy.", "That is wonderful! Puppies are so much fun. What is its name?"),
    ("Do you like music?", "I think music is lovely. It can make people happy. What songs do you like?"),
    ("I went to the beach yesterday.", "That sounds like a lovely day! Did you swim in the sea or build a sand castle?"),
    ("Thank you for your help.", "You are welcome! I am glad that I could help."),
    ("I am going to bed now.", "Good night! Sleep well and have sweet dreams."),
    ("It is raining again.", "Rain can be nice too. You could read a book, or put on your boots and jump in the puddles!"),
    ("My favorite food is pizza.", "Pizza is very tasty! What do you like on top of it?"),
    ("I am scared of the dark.", "Many people are scared of the dark. A small lamp near your bed can help. And remember, the dark cannot hurt you."),
]

# (request, answer): small tasks.
TASKS = [
    ("Describe an elephant.", "An elephant is a very big gray animal. It has a long trunk, large ears and thick legs. It uses its trunk to drink and to pick up food."),
    ("Name three things in a kitchen.", "Three things in a kitchen are a pot, a spoon and a table."),
    ("Write a short poem about the moon.", "The moon is round, the moon is bright,\nIt shines above me every night.\nIt looks at me, I look at it,\nAnd then I sleep a little bit."),
    ("Write a sentence with the word happy.", "The happy dog ran across the garden to meet its friend."),
    ("Give me one tip for making friends.", "Smile, say hello and ask the other person a question. People like it when you listen to them."),
    ("Tell me something interesting about whales.", "Whales live in the sea, but they are not fish. They come up to the top of the water to breathe air."),
    ("How can I be kind to my brother?", "You can share your toys with him and help him when he needs you. You can also listen when he talks."),
    ("Say something nice to my teacher.", "You are a wonderful teacher. Thank you for being so patient and for helping us learn."),
    ("What would a cat say if it could talk?", "A cat would say, \"Please give me some fish, and then let me sleep in the sun.\""),
]

# Conversations whose last turn follows up on the one before.
FOLLOW_UPS = [
    [("Tell me a story about a duck.", "A little duck could not swim. All the other ducks laughed at her. But an old goose helped her, and every day she tried again. One morning she swam across the whole pond."),
     ("What happened next?", "The other ducks were surprised. They said they were sorry, and they asked her to play. The little duck was happy and forgave them. Then they all swam across the pond together.")],
    [("What is a lighthouse?", "A lighthouse is a tall tower near the sea. It has a bright light at the top."),
     ("Why does it have a light?", "The light shows sailors where the land is. It helps ships to stay away from the rocks at night.")],
    [("I have a cat.", "How nice! Cats are lovely pets. What is your cat called?"),
     ("Her name is Mimi.", "Mimi is a pretty name! Does she like to play, or does she like to sleep all day?")],
    [("Tell me about a boy and his dog.", "Tim had a brown dog called Max. One day Max ran away. Tim looked everywhere. At last he found Max at the bakery, where he was eating a cookie."),
     ("What was the dog called?", "The dog was called Max.")],
    [("How do plants grow?", "Plants grow from seeds. They need water, light and good soil."),
     ("Thank you!", "You are welcome! Have fun with your plants.")],
    [("Write a story about a bear.", "A big bear wanted some honey. He put his nose into a bee hive. The bees were angry and chased him into the river."),
     ("Make it end happily.", "The bear came out of the river and said that he was sorry. The bees saw that he was hungry, so they gave him a small pot of honey. The bear thanked them, and they became friends.")],
]
